"""The adapter against EVF-SAM's own code with random weights: never a stand-in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess_torch.cli import main
from preprocess_torch.config import PreprocessConfig
from preprocess_torch.errors import UsageError
from preprocess_torch.models import import_upstream
from preprocess_torch.segmenters import build_segmenter, evf_sam
from relam_jax.keypoints.records import read_records

from .synthetic import line, render
from .upstream import define_missing_ops, need, need_torch

torch = need_torch()
need("model.evf_sam2", "RELAM_EVFSAM", "hustvl/EVF-SAM")
define_missing_ops(torch)
spm = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # upstream's own

WORDS = "the robot gripper green drawer on left red button of a box semantic"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as on the hub: the smallest model that upstream can build, weights random."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("evf-sam2-multitask")
    upstream: Any = import_upstream("model.evf_sam2", None, "", "RELAM_EVFSAM", "")
    torch.manual_seed(0)
    config = upstream.EvfConfig(
        hidden_size=768, out_dim=256, sam_scale="tiny", mm_extractor_scale="base"
    )
    config.save_pretrained(folder)
    model = upstream.EvfSam2Model(config)
    # else what a random network makes of the prompt drowns
    model.text_hidden_fcs[0][-1].weight.data *= 300
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    text = folder / "text.txt"
    text.write_text("\n".join([WORDS] * 20))
    spm.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "sentencepiece.bpe"),
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=9,
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "XLMRobertaTokenizer"})
    )
    return folder


@pytest.fixture(scope="module")
def finder(checkpoint: Path) -> Iterator[evf_sam.EvfSam]:
    yield evf_sam._load(None, str(checkpoint), "cpu", "auto")
    evf_sam._load.cache_clear()


def image(height: int = 90, width: int = 120) -> np.ndarray:
    frames, _ = render({"gripper": line(1, 1), "object": line(1, 1)}, size=120)
    return np.ascontiguousarray(frames[0, :height, :width])


def test_both_inputs_are_made_as_upstream_makes_them(finder: evf_sam.EvfSam) -> None:
    import inference  # upstream's script, beside its package

    for size in ((90, 120), (120, 47), (33, 33)):
        picture = image(*size)
        for padded, kind in ((False, "sam2"), (True, "ori")):
            mine, my_size = evf_sam.sam_input(picture, padded)
            theirs, their_size = inference.sam_preprocess(picture, model_type=kind)
            assert mine.shape == (3, 1024, 1024)
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)
            assert my_size == (None if their_size is None else tuple(their_size))
        torch.testing.assert_close(
            evf_sam.beit_input(picture), inference.beit3_preprocess(picture), atol=1e-4, rtol=0
        )


def test_prompts_become_the_ids_that_upstream_was_trained_on(
    finder: evf_sam.EvfSam, checkpoint: Path
) -> None:
    """XLM-R's numbering: <s> 0, </s> 2, pieces of the sentencepiece model from 3 on, each + 1."""
    pieces = spm.SentencePieceProcessor(str(checkpoint / "sentencepiece.bpe.model"))
    for prompt in ("robot gripper", "the green drawer on the left"):
        ids = finder.tokenizer(prompt, return_tensors="pt")["input_ids"]
        assert ids[0].tolist() == [0, *(i + 1 for i in pieces.encode(prompt)), 2]


def test_logits_are_upstreams_own(finder: evf_sam.EvfSam) -> None:
    """The steps of upstream's script, on the CPU."""
    import inference

    picture = image()
    mine = finder.logits(picture, "robot gripper")
    assert mine.shape == (90, 120) and mine.dtype == np.float32
    sam, resized = inference.sam_preprocess(picture, model_type="sam2")
    ids = finder.tokenizer("robot gripper", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        theirs = finder.model.inference(
            sam[None],
            inference.beit3_preprocess(picture)[None],
            ids,
            resize_list=[resized],
            original_size_list=[picture.shape[:2]],
        )
    np.testing.assert_allclose(mine, theirs[0].numpy(), atol=1e-3)
    # the prompt matters, the mask is the positive logits, the score their mean probability
    assert np.abs(finder.logits(picture, "green drawer") - mine).max() > 1e-4
    finder_mask, score = finder(picture, "robot gripper")
    np.testing.assert_array_equal(finder_mask, mine > 0)
    assert (not finder_mask.any() and score == 0) or 0.5 <= score <= 1


def test_half_precision_runs(finder: evf_sam.EvfSam) -> None:
    whole = finder.logits(image(), "robot gripper")
    half = evf_sam.EvfSam(
        finder.model.to(torch.bfloat16), finder.tokenizer, torch.bfloat16, finder.weights
    )
    try:
        logits = half.logits(image(), "robot gripper")
    finally:
        finder.model.float()
    assert np.corrcoef(logits.ravel(), whole.ravel())[0, 1] > 0.9


def config(checkpoint: Path | str, **fields: Any) -> PreprocessConfig:
    return PreprocessConfig(
        data=Path("videos"),
        segmenter="evf_sam",
        segmenter_checkpoint=str(checkpoint),
        **{"prompt": ("gripper=robot gripper",), "device": "cpu", **fields},
    )


def test_what_is_missing_is_said(checkpoint: Path, tmp_path: Path) -> None:
    def problem(config: PreprocessConfig) -> str:
        with pytest.raises(UsageError) as caught:
            build_segmenter(config, tmp_path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    (tmp_path / "empty").mkdir()
    assert "names no sam_scale" in problem(config(tmp_path / "empty"))
    for name in ("config.json", "tokenizer_config.json", "sentencepiece.bpe.model"):
        (tmp_path / "empty" / name).write_bytes((checkpoint / name).read_bytes())
    assert "holds no weights" in problem(config(tmp_path / "empty"))
    torch.save({"x": torch.zeros(1)}, tmp_path / "empty" / "pytorch_model.bin")
    assert "another model" in problem(config(tmp_path / "empty"))
    assert "only the multitask checkpoints" in problem(
        config("YxZhang/evf-sam2", prompt=("gripper=[semantic] hand",))
    )
    assert "needs a GPU" in problem(config(checkpoint, precision="fp16"))
    assert "not the checkout" in problem(config(checkpoint, evf_sam_repo=tmp_path))


def test_the_command_makes_records(
    finder: evf_sam.EvfSam,
    checkpoint: Path,
    make_folder: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """Whatever a random network calls a gripper is tracked, or is said not to be there."""
    folder = make_folder("push", 1)
    (folder / "masks.json").unlink()
    args = ["--data", folder, "--out", tmp_path / "out", "--segmenter", "evf_sam"]
    args += ["--segmenter_checkpoint", checkpoint, "--prompt", "robot gripper", "--device", "cpu"]
    code = main([str(a) for a in args])
    line = json.loads((tmp_path / "out" / "manifest.jsonl").read_text())
    if code == 0:
        record = read_records(tmp_path / "out")[0]
        assert record.entity_names == ("gripper",)
        assert json.loads(record.provenance)["models"][0] == finder.weights
    else:
        assert "no pixel of gripper ('robot gripper')" in line["reason"]
    assert (tmp_path / "out" / "previews" / "000.png").exists()

"""`sam3` on the real code of transformers, with a tiny model of random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.errors import UsageError
from preprocess_torch.segmenters import build_segmenter, sam3

from .synthetic import line, render
from .upstream import define_missing_ops, need_torch

torch = need_torch()
define_missing_ops(torch)
transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")
if not hasattr(transformers, "Sam3Model"):
    pytest.skip("this version of transformers has no Sam3Model", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as on the hub: SAM 3 with layers of 16 numbers for pictures of 56 pixels."""
    folder = tmp_path_factory.mktemp("sam3")
    small = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_layers": 1,
    }
    vision = {
        "backbone_config": small
        | {
            "model_type": "sam3_vit_model",
            "image_size": 56,
            "patch_size": 14,
            "window_size": 2,
            "global_attn_indexes": [1],
        }
        | {"pretrain_image_size": 56},
        "fpn_hidden_size": 16,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    }
    config = transformers.Sam3Config(
        vision_config=vision,
        text_config=small | {"vocab_size": 600, "projection_dim": 16, "max_position_embeddings": 32}
        | {"eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 1},
        geometry_encoder_config=small,
        detr_encoder_config=small,
        detr_decoder_config=small | {"num_queries": 5},
        mask_decoder_config=small,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.Sam3Model(config).save_pretrained(folder)
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=32)
    processor = transformers.Sam3Processor(
        transformers.Sam3ImageProcessor(
            size={"height": 56, "width": 56}, mask_size={"height": 16, "width": 16}
        ),
        tokenizer,
    )
    processor.save_pretrained(folder)
    return folder


def build(checkpoint: Path, folder: Path, **fields: Any) -> Any:
    sam3._load.cache_clear()
    config = PreprocessConfig(
        data=folder,
        segmenter="sam3",
        segmenter_checkpoint=str(checkpoint),
        device="cpu",
        **{"prompt": ("gripper=robot gripper", "object=drawer"), "min_score": 0.0, **fields},
    )
    return build_segmenter(config, folder)


def test_the_best_instance_is_the_mask(checkpoint: Path, tmp_path: Path) -> None:
    frames, _ = render({"gripper": line(1, 1), "object": line(1, 1)})
    segmenter = build(checkpoint, tmp_path)
    mask, score = segmenter._finder(frames[0], "drawer")
    assert mask.shape == (96, 96) and mask.dtype == bool and 0 < score < 1
    finder = segmenter._finder
    inputs = finder.processor(images=frames[0], text="drawer", return_tensors="pt")
    with torch.no_grad():
        out = finder.model(**inputs)
    scores = (out.pred_logits.sigmoid() * out.presence_logits.sigmoid())[0]
    assert score == pytest.approx(float(scores.max()), abs=1e-5)
    best = out.pred_masks[:, int(scores.argmax())].sigmoid()
    best = torch.nn.functional.interpolate(best[None], (96, 96), mode="bilinear")[0, 0] > 0.5
    np.testing.assert_array_equal(mask, best.numpy())
    assert set(segmenter.segment(frames, Path("a.mp4"))) <= {"gripper", "object"}
    assert build(checkpoint, tmp_path, min_score=1.0).segment(frames, Path("a.mp4")) == {}


def test_missing_weights_are_an_error(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(checkpoint / "model.safetensors")
    some = {k: v for k, v in weights.items() if not k.startswith("text_encoder")}
    save_file(some, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match="weights that this version"):
        build(tmp_path, tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UsageError, match="no checkpoint of SAM 3"):
        build(tmp_path, tmp_path)

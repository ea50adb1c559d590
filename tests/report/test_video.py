"""Videos that browsers play."""

import av
import numpy as np
import pytest

from relam_jax.video import write_video


def test_h264_yuv420p_of_all_frames(tmp_path):
    path = tmp_path / "a.mp4"
    shades = np.arange(0, 240, 20, np.uint8)
    write_video(path, (np.full((32, 48, 3), s, np.uint8) for s in shades), fps=80 / 6)
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == pytest.approx(80 / 6, rel=1e-3)
        frames = [f.to_ndarray(format="rgb24") for f in video.decode(stream)]
    assert [f.shape for f in frames] == [(32, 48, 3)] * len(shades)
    assert np.abs([f.mean() for f in frames] - shades.astype(float)).max() < 6
    before = path.read_bytes()
    write_video(path, (np.full((32, 48, 3), s, np.uint8) for s in shades), fps=80 / 6)
    assert path.read_bytes() == before, "the same frames, the same file"


@pytest.mark.parametrize("frames", [[], [np.zeros((32, 47, 3), np.uint8)]])
def test_nothing_is_left_of_a_video_that_cannot_be(tmp_path, frames):
    with pytest.raises(ValueError, match="frames"):
        write_video(tmp_path / "a.mp4", frames, fps=10.0)
    assert list(tmp_path.iterdir()) == []

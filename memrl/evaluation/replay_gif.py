"""A replay as an animated GIF of the environment's images, one policy above the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from memrl.evaluation.replay_steps import Replay
from memrl.page_texts import printable

FRAME_MS = 700
_LAST_FRAME_MS = 3000
_CAPTION, _LEFT = 26, 16  # pixels
_INK, _BACKGROUND = "#ffffff", "#1b1b1f"


def save_gif(
    path: Path, replays: Sequence[Replay], frames: Sequence[Sequence[npt.NDArray[np.uint8]]]
) -> None:
    """Write the animation: a frame a decision; who waits for the other's event stands still.

    Args:
        path: of the file.
        replays: of one episode. frames: of each, an (H, W, 3) image a step.

    Raises:
        OSError: if it cannot be written.
    """
    captioned = [
        [
            _captioned(image, f"{replay.policy}: {step.chosen or 'the end'}")
            for image, step in zip(images, replay.steps, strict=True)
        ]
        for replay, images in zip(replays, frames, strict=True)
    ]
    shown = [
        _stacked([images[number] for images, number in zip(captioned, numbers, strict=True)])
        for numbers in timeline(replays)
    ]
    # One palette for all: they have the same few colours, and no frame flickers against another.
    palette = shown[-1].quantize(colors=256, dither=Image.Dither.NONE)
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in shown]
    images[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=[FRAME_MS] * (len(images) - 1) + [_LAST_FRAME_MS],
        loop=0,
    )


def timeline(replays: Sequence[Replay]) -> list[tuple[int, ...]]:
    """Which step of each replay every frame shows, event by event."""
    events = sorted({step.event for replay in replays for step in replay.steps})
    own = [[step.event for step in replay.steps] for replay in replays]
    frames: list[tuple[int, ...]] = []
    at = [0] * len(replays)
    for event in events:
        due = [[n for n, e in enumerate(of_one) if e == event] for of_one in own]
        for turn in range(max(map(len, due))):
            at = [
                numbers[min(turn, len(numbers) - 1)] if numbers else last
                for numbers, last in zip(due, at, strict=True)
            ]
            frames.append(tuple(at))
    return frames


def _captioned(image: npt.NDArray[np.uint8], caption: str) -> Image.Image:
    height, width, _ = image.shape
    whole = Image.new("RGB", (width, height + _CAPTION), _BACKGROUND)
    font = ImageFont.load_default(size=14)
    ImageDraw.Draw(whole).text((_LEFT, 4), printable(caption), fill=_INK, font=font)
    whole.paste(Image.fromarray(image), (0, _CAPTION))
    return whole


def _stacked(images: Sequence[Image.Image]) -> Image.Image:
    width = max(image.width for image in images)
    whole = Image.new("RGB", (width, sum(image.height for image in images)), _BACKGROUND)
    top = 0
    for image in images:
        whole.paste(image, (0, top))
        top += image.height
    return whole

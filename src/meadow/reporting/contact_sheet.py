"""Photos side by side on one picture, each with a line of text."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

TILE, LINE, COLUMNS = 160, 34, 6  # pixels, pixels, photos


def contact_sheet(tiles: Sequence[tuple[Image.Image, str]], title: str) -> Image.Image:
    """Draw thumbnails in rows of six under a title; a caption has at most two short lines."""
    rows = -(-len(tiles) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * TILE, LINE + rows * (TILE + LINE)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    draw.text((6, 8), title, "black", font)
    for i, (photo, caption) in enumerate(tiles):
        x, y = i % COLUMNS * TILE, LINE + i // COLUMNS * (TILE + LINE)
        sheet.paste(photo, (x + (TILE - photo.width) // 2, y + (TILE - photo.height) // 2))
        draw.text((x + 6, y + TILE), caption, "black", font)
    return sheet

"""Transparency, more than 8 bits, palettes, CMYK, EXIF, frames, large images: one outcome each."""
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from timm_smalldata.data.pixels import Kinds, PixelRule, decode, grey_range, notes_on, total


def encoded(image, format='PNG', **kwargs):
    stream = io.BytesIO()
    image.save(stream, format, **kwargs)
    return stream.getvalue()


def pixel(raw, *rule):
    return np.asarray(decode(raw, PixelRule(*rule)))[0, 0].tolist()


# --- transparency ---------------------------------------------------------------------------------------------------

def palette(**kwargs):
    image = Image.new('P', (2, 2), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    return encoded(image, transparency=1, **kwargs)


@pytest.mark.parametrize('raw, hidden', [
    (encoded(Image.new('RGBA', (2, 2), (200, 100, 50, 0))), [200, 100, 50]),
    (encoded(Image.new('RGBA', (2, 2), (200, 100, 50, 0)), 'TIFF'), [200, 100, 50]),
    (encoded(Image.new('LA', (2, 2), (90, 0))), [90] * 3),
    (encoded(Image.new('RGB', (2, 2), (200, 100, 50)), transparency=(200, 100, 50)), [200, 100, 50]),
    (encoded(Image.new('L', (2, 2), 90), transparency=90), [90] * 3), (palette(), [200, 100, 50]),
], ids=['RGBA', 'TIFF', 'LA', 'colour', 'grey', 'palette'])
def test_what_shines_through(raw, hidden):
    assert pixel(raw) == pixel(raw, 'white') == [255, 255, 255]
    assert pixel(raw, 'grey') == [128, 128, 128] and pixel(raw, 'black') == [0, 0, 0]
    assert pixel(raw, 'drop') == hidden  # what Pillow's convert('RGB') shows


@pytest.mark.parametrize('ground, value', [('white', 255), ('grey', 128), ('black', 0)])
def test_half_transparent_pixels_are_mixed(ground, value):
    rng = np.random.RandomState(0)
    pixels = rng.randint(0, 256, (16, 16, 4)).astype(np.uint8)
    above, share = pixels[..., :3].astype(float), pixels[..., 3:] / 255
    mixed = share * above + (1 - share) * value  # the equation of "over" on an opaque ground
    ours = np.asarray(decode(encoded(Image.fromarray(pixels, 'RGBA')), PixelRule(ground)))
    assert np.abs(ours - mixed).max() <= 1  # 8-bit rounding


def test_opaque_images_are_as_they_are():
    pixels = np.random.RandomState(0).randint(0, 256, (8, 8, 3)).astype(np.uint8)
    opaque = Image.fromarray(pixels).convert('RGBA')
    assert all(np.array_equal(decode(encoded(image)), pixels) for image in (opaque, Image.fromarray(pixels)))


# --- more than 8 bits -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize('format', ['PNG', 'TIFF'])
def test_16_bit_greyscale_is_scaled(format):
    raw = encoded(Image.fromarray(np.array([[0, 257, 32768, 65535]], dtype=np.uint16)), format)
    assert np.asarray(decode(raw))[0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]


def test_the_range_is_that_of_the_bits_in_use_or_given():
    raw = encoded(Image.fromarray(np.array([[0, 1000, 4000]], dtype=np.uint16)), 'TIFF')
    assert np.asarray(decode(raw))[0, :, 0].tolist() == [0, 62, 249]  # of 4095
    assert np.asarray(decode(raw, PixelRule(grey_range=(0, 65535))))[0, :, 0].tolist() == [0, 4, 16]
    assert np.asarray(decode(raw, PixelRule(grey_range=(500, 2500))))[0, :, 0].tolist() == [0, 64, 255]
    for highest, top in ((0, 1), (1, 1), (1.5, 255), (255, 255), (256, 1023), (4095, 4095), (4096, 16383),
                         (65535, 65535)):
        assert grey_range(0, highest) == (0, top)


def test_float_and_big_endian_and_32_bit_images():
    ramp = np.linspace(0, 1, 5, dtype=np.float32)[None]
    for pixels in (ramp, (ramp * 60000).astype('>u2'), (ramp * 60000).astype(np.int32)):
        image = decode(encoded(Image.fromarray(pixels), 'TIFF'), PixelRule(grey_range=(0, pixels.max())))
        assert np.asarray(image)[0, :, 0].tolist() == [0, 64, 128, 191, 255]


def test_16_bit_colour_is_its_upper_8_bits():
    """A PNG by hand, as Pillow writes none: one pixel of 16 bits a channel."""
    import struct
    import zlib

    def chunk(name, data):
        return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))

    rows = zlib.compress(b'\0' + struct.pack('>3H', 0xC8FF, 0x6400, 0x3201))
    raw = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>2I5B', 1, 1, 16, 2, 0, 0, 0))
    assert pixel(raw + chunk(b'IDAT', rows) + chunk(b'IEND', b'')) == [0xC8, 0x64, 0x32]


# --- and the rest ---------------------------------------------------------------------------------------------------

def test_cmyk_palette_one_bit_and_exif():
    assert pixel(encoded(Image.new('CMYK', (2, 2), (0, 255, 255, 0)), 'TIFF')) == [255, 0, 0]
    image = Image.new('P', (2, 2), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    assert pixel(encoded(image)) == pixel(encoded(image, 'GIF')) == [200, 100, 50]
    assert pixel(encoded(Image.new('1', (2, 2), 1))) == [255] * 3
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert decode(encoded(Image.new('RGB', (40, 20)), 'JPEG', exif=exif)).size == (40, 20)  # which is not done


@pytest.mark.parametrize('format', ['GIF', 'PNG', 'WEBP', 'TIFF'])
def test_the_first_frame_is_read(format):
    frames = [Image.new('RGB', (4, 4), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    raw = encoded(frames[0], format, save_all=True, append_images=frames[1:], **(
        dict(lossless=True) if format == 'WEBP' else {}))
    assert pixel(raw) == [255, 0, 0]


def test_large_images_are_read_smaller(monkeypatch):
    monkeypatch.setattr('timm_smalldata.data.pixels.LARGE', 1000)
    rng = np.random.RandomState(0)
    pixels = rng.randint(0, 256, (50, 83, 3)).astype(np.uint8)  # 4150 pixels: by 3, the last column and row are ragged
    ours = np.asarray(decode(encoded(Image.fromarray(pixels))))
    assert ours.shape == (17, 28, 3)
    means = pixels[:48, :81].reshape(16, 3, 27, 3, 3).mean((1, 3))
    assert np.abs(ours[:16, :27] - means).max() <= 1
    black = Image.new('1', (100, 100), 0)
    assert decode(encoded(black)).size == (25, 25)
    jpeg = decode(encoded(Image.new('RGB', (100, 100), (200, 100, 50)), 'JPEG'))
    assert jpeg.width * jpeg.height <= 1000 and np.abs(np.asarray(jpeg) - [200, 100, 50]).max() <= 3
    alpha = decode(encoded(Image.new('RGBA', (100, 100), (9, 9, 9, 0))))
    assert np.asarray(alpha).min() == 255
    deep = np.zeros((100, 100), dtype=np.uint16)
    deep[:50] = 4095
    assert np.unique(np.asarray(decode(encoded(Image.fromarray(deep))))[[0, -1]]).tolist() == [0, 255]


@pytest.mark.skipif(not os.access('/proc/self/clear_refs', os.W_OK), reason='Linux tells the peak of the memory')
def test_a_large_image_takes_little_memory():
    """13,000 x 13,000 pixels of 1 bit: Pillow holds a byte of each (170 MB), and nothing holds colours of each."""
    def memory(kind):
        return int(re.search(rf'{kind}:\s+(\d+)', Path('/proc/self/status').read_text()).group(1)) << 10

    raw = encoded(Image.new('1', (13000, 13000), 1))
    Path('/proc/self/clear_refs').write_text('5')  # the peak is counted anew
    before = memory('VmRSS')
    image = decode(raw)
    assert memory('VmHWM') - before < 450e6  # in RGB it would be 170 + 676 MB
    assert image.size == (6500, 6500) and image.getpixel((6499, 6499)) == (255, 255, 255)


def test_lines_on_what_is_not_plain():
    kinds = total([Kinds(alpha=2, deep=1, highest=3000), Kinds(deep=2, animated=1, highest=4000), Kinds()])
    assert notes_on(kinds, PixelRule()) == [
        '2 images have transparency: laid on white (--alpha)',
        '3 greyscale images have more than 8 bits: 0 to 4095 becomes 0 to 255 (--grey-range); values seen: 0 to 4000',
        '1 image has several frames: the first one is read']
    assert 'hidden colours' in notes_on(Kinds(alpha=1), PixelRule('drop'))[0]
    assert notes_on(Kinds(), PixelRule()) == []

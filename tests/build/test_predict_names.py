"""Images to predict on are found under every name that a file can have."""
from timm_smalldata.build.predict import find_images


def test_names_with_digits_that_are_no_numbers(photo_folder):
    folder = photo_folder('new', {'ant': 2}, suffixes=('.png',)) / 'ant'
    (folder / '0.png').rename(folder / '1²1.png')
    (folder / '1.png').rename(folder / 'b10.png')
    assert [path.name for path in find_images([folder])] == ['1²1.png', 'b10.png']

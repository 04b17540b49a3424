"""Sets of images: every stated conversion, and every kind of bad input refused by name."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentshift.errors import DamagedFileError, FileError, RequestError, UnsafeFileError
from latentshift.files import npz
from latentshift.files.images import read_images
from latentshift.files.npz import Npz, read_npy

RNG = np.random.default_rng(0)


def picture(height: int = 8, width: int = 8, channels: int = 3) -> np.ndarray:
    x = RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return x if channels > 1 else x[:, :, 0]


def png(x: np.ndarray, **kw: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(x).save(stream, "PNG", **kw)
    return stream.getvalue()


def folder(tmp_path: Path, **files: bytes) -> Path:
    for name, raw in files.items():
        (tmp_path / f"{name}.png").write_bytes(raw)
    return tmp_path


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
    return path


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path: Path) -> None:
    xs = [picture() for _ in range(3)]
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "0.png").write_bytes(png(xs[2]))
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("x")
    data = read_images(folder(tmp_path, b=png(xs[1]), a=png(xs[0])))
    assert data.names == ("a.png", "b.png", "sub/0.png")
    np.testing.assert_array_equal(data.images, np.stack(xs).transpose(0, 3, 1, 2))
    assert data.notes == ("1 files that are no pictures are ignored",)
    assert data.labels is None


def test_stylegan_zip_with_labels(tmp_path: Path) -> None:
    xs = [picture() for _ in range(3)]
    names = ["00000/img00000000.png", "00000/img00000001.png", "00000/img00000002.png"]
    table = json.dumps({"labels": [[names[1], 7], [names[0], 3], [names[2], 0]]}).encode()
    path = make_zip(tmp_path / "d.zip", {**dict(zip(names, map(png, xs))), "dataset.json": table})
    data = read_images(path)
    assert data.labels is not None
    assert data.labels.tolist() == [3, 7, 0]
    np.testing.assert_array_equal(data.images, np.stack(xs).transpose(0, 3, 1, 2))
    none = make_zip(tmp_path / "n.zip", {names[0]: png(xs[0]), "dataset.json": b'{"labels": null}'})
    assert read_images(none).labels is None
    for bad in (b'{"labels": [["other.png", 1]]}', b"[", b'{"labels": 5}', b"{}"):
        with pytest.raises(DamagedFileError, match=r"dataset\.json"):
            read_images(make_zip(tmp_path / "b.zip", {names[0]: png(xs[0]), "dataset.json": bad}))


def test_equal_sets_have_equal_hashes_however_they_are_stored(tmp_path: Path) -> None:
    xs = [picture() for _ in range(3)]
    (tmp_path / "f").mkdir()
    a = read_images(folder(tmp_path / "f", **{str(i): png(x) for i, x in enumerate(xs)}))
    np.savez_compressed(tmp_path / "a.npz", images=np.stack(xs))
    b = read_images(tmp_path / "a.npz")
    assert a.sha256() == b.sha256()
    np.save(tmp_path / "c.npy", np.stack(xs)[:, ::-1])
    assert read_images(tmp_path / "c.npy").sha256() != a.sha256()


def test_grey_and_colour_by_the_stated_rules(tmp_path: Path) -> None:
    grey, colour = picture(channels=1), picture()
    data = read_images(folder(tmp_path, a=png(grey), b=png(colour)))
    assert data.images.shape == (2, 3, 8, 8)
    np.testing.assert_array_equal(data.images[0], np.stack([grey] * 3))
    assert data.notes == ("1 of 2 pictures: grey repeated to colour",)
    one = read_images(tmp_path, channels=1)
    np.testing.assert_array_equal(one.images[1, 0], np.asarray(Image.fromarray(colour).convert("L")))
    assert "1 of 2 pictures: colour turned to grey" in one.notes[0]
    (tmp_path / "b.png").unlink()
    assert read_images(tmp_path).images.shape == (1, 1, 8, 8)


def test_palette_alpha_and_16_bit(tmp_path: Path) -> None:
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[:2, :, 0] = 200
    palette = io.BytesIO()
    Image.fromarray(colour).convert("P", palette=Image.Palette.ADAPTIVE).save(palette, "PNG")
    rgba = np.concatenate([colour, np.full((4, 4, 1), 255, np.uint8)], 2)
    rgba[0, 0] = (9, 9, 9, 0)
    deep = (np.arange(16, dtype=np.uint16) * 4096 + 255).reshape(4, 4)
    data = read_images(folder(tmp_path, a=palette.getvalue(), b=png(rgba), c=png(deep)))
    np.testing.assert_array_equal(data.images[0].transpose(1, 2, 0), colour)
    assert data.images[1, :, 0, 0].tolist() == [255, 255, 255]  # hidden colour does not show
    assert data.images[1, 0, 0, 1] == 200
    assert data.images[2, 0].ravel().tolist() == [16 * i for i in range(16)]
    assert sorted(data.notes) == [
        "1 of 3 pictures: 16 bits reduced to 8",
        "1 of 3 pictures: grey repeated to colour",
        "1 of 3 pictures: palette pictures converted by their colours",
        "1 of 3 pictures: transparent pixels laid over white",
    ]
    opaque = rgba.copy()
    opaque[:, :, 3] = 255
    (tmp_path / "o").mkdir()
    assert read_images(folder(tmp_path / "o", a=png(opaque))).notes == ()


def test_transparent_palette_and_grey_alpha(tmp_path: Path) -> None:
    entry = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    entry.putpalette([10, 20, 30, 40, 50, 60])
    raw = io.BytesIO()
    entry.save(raw, "PNG", transparency=0)
    la = np.array([[[100, 255], [100, 0]]], np.uint8)
    data = read_images(folder(tmp_path, a=raw.getvalue(), b=png(la)))
    assert data.images[0, :, 0].T.tolist() == [[255, 255, 255], [40, 50, 60]]
    assert data.images[1, 0, 0].tolist() == [100, 255]


def test_orientation_and_animation(tmp_path: Path) -> None:
    x = picture()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    frames = [Image.fromarray(np.full((8, 8), v, np.uint8)) for v in (10, 200)]
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:])
    data = read_images(folder(tmp_path, a=png(x, exif=exif)))
    np.testing.assert_array_equal(data.images[0].transpose(1, 2, 0), np.rot90(x, -1))
    assert data.images[1].max() == 10
    assert any("EXIF" in n for n in data.notes)
    assert any("first frame" in n for n in data.notes)


def test_odd_sizes_need_a_stated_size_and_are_cropped_and_resized(tmp_path: Path) -> None:
    wide, tall = picture(8, 12), picture(16, 8)
    path = folder(tmp_path, a=png(wide), b=png(tall), c=png(wide))
    with pytest.raises(FileError, match=r"2 sizes \(most are 12x8, b\.png is 8x16\)"):
        read_images(path)
    data = read_images(path, size=8)
    np.testing.assert_array_equal(data.images[0].transpose(1, 2, 0), wide[:, 2:10])
    np.testing.assert_array_equal(data.images[1].transpose(1, 2, 0), tall[4:12])
    assert data.notes == ("3 of 3 pictures: cropped to the centred square",)
    four = read_images(path, size=4)
    by_pillow = Image.fromarray(wide[:, 2:10]).resize((4, 4), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(four.images[0].transpose(1, 2, 0), np.asarray(by_pillow))
    assert "3 of 3 pictures: reduced (Lanczos)" in four.notes


def test_tiny_pictures_are_enlarged_with_a_note_or_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, a=png(picture(2, 2)))
    assert read_images(path, size=8).notes == ("1 of 1 pictures: enlarged (Lanczos)",)
    with pytest.raises(FileError, match=r"2x2 is too small for 32x32.*a\.png.*8 pixels or less"):
        read_images(path, size=32)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-LFS"),
        (b"PK\x03\x04aaaaaaaa", "a zip archive"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 20, "not a picture|damaged"),
        (png(picture(40, 40))[:900], "damaged"),
    ],
)
def test_an_unreadable_picture_is_named_and_never_left_out(tmp_path: Path, raw: bytes, message: str) -> None:
    path = folder(tmp_path, a=png(picture()), b=raw, c=png(picture()))
    with pytest.raises(FileError, match=message) as caught:
        read_images(path)
    assert "b.png" in str(caught.value)
    assert caught.value.exit_status == 4
    (path / "d.png").write_bytes(raw)
    with pytest.raises(FileError, match=r"2 of 4 pictures cannot be used, the first"):
        read_images(path)


def test_a_flipped_byte_is_damage(tmp_path: Path) -> None:
    raw = bytearray(png(picture(30, 30)))
    raw[500] ^= 255
    with pytest.raises(DamagedFileError, match=r"a\.png"):
        read_images(folder(tmp_path, a=bytes(raw)))


def test_float_and_huge_pictures_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(FileError, match="mode F has no stated range"):
        read_images(tmp_path)
    (tmp_path / "h").mkdir()
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    fake = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
    fake += struct.pack(">I", __import__("zlib").crc32(b"IHDR" + header))
    fake += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", __import__("zlib").crc32(b"IDAT"))
    with pytest.raises(UnsafeFileError):
        read_images(folder(tmp_path / "h", a=fake))


def test_a_single_image_where_more_are_needed(tmp_path: Path) -> None:
    path = folder(tmp_path, a=png(picture()))
    assert len(read_images(path).images) == 1
    assert len(read_images(path / "a.png").images) == 1
    with pytest.raises(FileError, match="1 image where 2 are needed"):
        read_images(path, least=2)


def test_empty_and_strange_places(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(b"")
    with pytest.raises(FileError, match=r"without pictures.*data\.zip"):
        read_images(tmp_path)
    with pytest.raises(FileError, match="no such file"):
        read_images(tmp_path / "absent")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="neither a file nor a folder"):
        read_images(tmp_path / "pipe")
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(FileError, match="not a set of images"):
        read_images(tmp_path / "x.txt")
    with pytest.raises(DamagedFileError, match="not a readable zip"):
        read_images(tmp_path / "data.zip")
    with pytest.raises(RequestError):
        read_images(tmp_path, channels=4)


def test_zips_that_hide_something_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = png(picture())
    inner = make_zip(tmp_path / "inner.zip", {"a.png": good}).read_bytes()
    cases: dict[str, tuple[dict[str, bytes], type[Exception], str]] = {
        "nested": ({"a.png": good, "inner.zip": inner}, FileError, "another archive"),
        "above": ({"../a.png": good}, UnsafeFileError, "outside"),
        "absolute": ({"/etc/a.png": good}, UnsafeFileError, "outside"),
        "windows": ({"x\\..\\a.png": good}, UnsafeFileError, "outside"),
        "empty": ({}, FileError, "without pictures"),
    }
    for name, (members, kind, message) in cases.items():
        with pytest.raises(kind, match=message):
            read_images(make_zip(tmp_path / f"{name}.zip", members))
    monkeypatch.setattr(npz, "FLOOR", 2**20)  # the limit itself is 1 GiB
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", bytes(2**21))
    with pytest.raises(UnsafeFileError, match="claim to unpack"):
        read_images(tmp_path / "bomb.zip")
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("a.png", good)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.png", good)
    with pytest.raises(DamagedFileError, match="twice"):
        read_images(tmp_path / "twice.zip")
    link = zipfile.ZipInfo("a.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(FileError, match="a link"):
        read_images(tmp_path / "link.zip")


def test_a_cut_or_flipped_zip_is_damage(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.png": png(picture(20, 20))})
    raw = bytearray(path.read_bytes())
    path.write_bytes(raw[:-30])
    with pytest.raises(DamagedFileError):
        read_images(path)
    raw[200] ^= 255
    path.write_bytes(raw)
    with pytest.raises(DamagedFileError):
        read_images(path)


def test_npz_layouts_keys_and_labels(tmp_path: Path) -> None:
    x = np.stack([picture() for _ in range(4)])
    np.savez(tmp_path / "adm.npz", arr_0=x, arr_1=np.arange(4))
    data = read_images(tmp_path / "adm.npz")
    np.testing.assert_array_equal(data.images, x.transpose(0, 3, 1, 2))
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2, 3]
    np.savez(tmp_path / "nchw.npz", faces=x.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(read_images(tmp_path / "nchw.npz").images, data.images)
    np.savez(tmp_path / "two.npz", small=x, large=x)
    with pytest.raises(FileError, match=r"which array holds the images\? \(large, small\)"):
        read_images(tmp_path / "two.npz")
    assert len(read_images(f"{tmp_path}/two.npz:small").images) == 4
    with pytest.raises(FileError, match="no array 'medium'"):
        read_images(tmp_path / "two.npz", key="medium")


def test_arrays_that_would_be_a_guess_are_refused(tmp_path: Path) -> None:
    cases = {
        "floats": (np.zeros((2, 4, 4, 3), np.float32), "uint8"),
        "both": (np.zeros((2, 3, 5, 3), np.uint8), "both ways"),
        "five": (np.zeros((2, 5, 5, 5), np.uint8), "no axis of 1 or 3"),
        "flat": (np.zeros((2, 12), np.uint8), "no set of images"),
        "objects": (np.array([None, None]), "Python objects"),
        "none": (np.zeros((0, 4, 4), np.uint8), "no images"),
    }
    for name, (x, message) in cases.items():
        np.savez(tmp_path / f"{name}.npz", images=x)
        with pytest.raises(FileError, match=message):
            read_images(tmp_path / f"{name}.npz")
    np.savez(tmp_path / "stats.npz", mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(FileError, match="statistics hold no images"):
        read_images(tmp_path / "stats.npz")


def test_a_header_that_promises_more_than_the_file_holds(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 4, 4), np.uint8))
    raw = (tmp_path / "a.npy").read_bytes().replace(b"(2, 4, 4)", b"(9**9,)  "[:9])
    (tmp_path / "evil.npy").write_bytes(raw)
    (tmp_path / "large.npy").write_bytes((tmp_path / "a.npy").read_bytes().replace(b"(2, 4, 4)", b"(9999999,)"[:9] + b""))
    (tmp_path / "wide.npy").write_bytes((tmp_path / "a.npy").read_bytes().replace(b"(2, 4, 4)", b"(999999,)"))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-5])
    for name in ("evil", "large", "wide", "cut"):
        with pytest.raises(DamagedFileError, match=name):
            read_npy(tmp_path / f"{name}.npy")
    np.savez(tmp_path / "f.npz", a=np.asfortranarray(np.arange(6).reshape(2, 3)))
    with Npz(tmp_path / "f.npz") as arrays:
        np.testing.assert_array_equal(arrays["a"], [[0, 1, 2], [3, 4, 5]])
        assert list(arrays) == ["a"]


def test_idx_with_its_labels_and_its_border(tmp_path: Path) -> None:
    x = RNG.integers(1, 256, (3, 28, 28), dtype=np.uint8)
    head = struct.pack(">IIII", 2051, 3, 28, 28)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(head + x.tobytes()))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(struct.pack(">II", 2049, 3) + bytes([5, 0, 4])))
    data = read_images(path, size=32)
    assert data.labels is not None
    assert data.labels.tolist() == [5, 0, 4]
    np.testing.assert_array_equal(data.images[:, 0, 2:30, 2:30], x)
    assert data.images[:, :, [0, 1, 30, 31]].max() == 0
    assert data.notes == ("all 3 images (28x28): a black border of 2 pixels",)
    assert read_images(path, channels=3).images.shape == (3, 3, 28, 28)
    with pytest.raises(FileError, match="images-idx3"):
        read_images(tmp_path / "t10k-labels-idx1-ubyte.gz")
    path.write_bytes(gzip.compress(head + x.tobytes()[:-1]))
    with pytest.raises(DamagedFileError, match="the header says"):
        read_images(path)


def test_progress_counts_pictures(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    read_images(folder(tmp_path, a=png(picture()), b=png(picture())), progress=lambda i, n: seen.append((i, n)))
    assert seen == [(1, 2), (2, 2)]

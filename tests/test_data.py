"""Arrays in [-1, 1]: every format that is read, and what happens when a download or a file is not whole."""

import gzip
import hashlib
import http.client
import io
import os
import pickle
import shutil
import socket
import struct
import tarfile
import urllib.error
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_tutorial import data

IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
KINDS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}


class Internet:
    """Stands for the network below torchvision's own download code: answers urlopen, in two halves, from a dictionary of files."""

    def __init__(self):
        self.files, self.asked, self.between = {}, [], lambda name: None        # between(name) happens when half of that file is written

    def __call__(self, request, *args, **kwargs):
        name = request.full_url.rsplit("/", 1)[-1]
        if name not in self.files:
            raise urllib.error.URLError("there is no network here")
        return Answer(self, name, request.full_url, head=request.get_method() == "HEAD" or request.has_header("Method"))


class Answer(io.BytesIO):
    """One file on its way."""

    def __init__(self, internet, name, url, head):
        super().__init__(internet.files[name])
        self.internet, self.name, self.url, self.length = internet, name, url, len(internet.files[name])
        if not head:
            internet.asked.append(name)

    def read(self, n=-1):
        if 0 < self.tell() < self.length:
            self.internet.between(self.name)
        return super().read((self.length + 1) // 2)


@pytest.fixture(autouse=True)
def internet(monkeypatch):
    """No test reaches the real one; this one has only what the test puts there."""
    monkeypatch.setattr("urllib.request.urlopen", internet := Internet())
    monkeypatch.delenv("DDPM_DATA", raising=False)
    return internet


@pytest.fixture(scope="module")
def digits():
    return data.load("digits"), data.load("digits", "test")


def pixels(*shape, seed=0):
    """Random uint8."""
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def idx(array):
    """The format of MNIST: 0, 0, 8 (bytes), number of dimensions, the dimensions in big-endian order, the bytes."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.numpy().tobytes()


def mnist(seed=0):
    """Two splits of 60 and 40 images, 28×28, and the four files that hold them."""
    train, test = (pixels(60, 28, 28, seed=seed), torch.arange(60).byte() % 10), (pixels(40, 28, 28, seed=seed + 1), torch.arange(40).byte() % 10)
    return train, test, dict(zip(IDX, map(idx, (*train, *test))))


def put(folder, files):
    """Write files {name: bytes}."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def pack(files):
    return {f"{name}.gz": gzip.compress(content) for name, content in files.items()}


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def served(internet, monkeypatch):
    """A small MNIST on the internet, with the checksums that torchvision expects; returns its two splits."""
    import torchvision

    train, test, files = mnist()
    internet.files = pack(files)
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", [(name, md5(content)) for name, content in internet.files.items()])
    return train, test


def is_mnist(folder, served):
    """Both splits are what is served."""
    for split, (images, y) in zip(("train", "test"), served):
        loaded = data.load("mnist", split, folder=folder)
        assert torch.equal(loaded.images[:, 0], images) and torch.equal(loaded.y, y.long())
    return True


# The doors.

def test_every_grey_value_survives_the_way_in_and_out():
    """denormalise(normalise(u)) == u for all 256: rounding and not truncation (dome272's `.type(uint8)` loses a level)."""
    grey = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(data.denormalise(data.normalise(grey)), grey)


def test_images_live_in_minus_1_to_1():
    """DDPM section 3.3: "{0, 1, …, 255} scaled linearly to [-1, 1]" (TeaPearce, labml: left in [0, 1])."""
    x = data.normalise(torch.arange(256, dtype=torch.uint8))
    assert x.dtype == torch.float32 and x[0] == -1 and x[255] == 1
    torch.testing.assert_close(x.diff(), torch.full((255,), 2 / 255))


def test_what_lies_outside_the_range_is_clamped_on_the_way_out():
    """A sample of 1.3 is white and not 37 (overflow of uint8)."""
    assert data.denormalise(torch.tensor([-7.0, -1.001, 1.001, 1.3])).tolist() == [0, 0, 255, 255]


# Digits.

def test_the_digits_are_split_70_to_30_within_each_class(digits):
    """1,797 images, 8×8, of ten classes; every class has its share in both splits."""
    train, test = digits
    assert train.images.shape[1:] == test.images.shape[1:] == (1, 8, 8) and train.images.dtype == torch.uint8
    assert len(train.images) == len(train.y) and len(test.images) == len(test.y) and len(train.y) + len(test.y) == 1797
    assert train.classes == tuple("0123456789") and train.y.dtype == torch.int64
    for k in range(10):
        ours, theirs = (train.y == k).sum().item(), (test.y == k).sum().item()
        assert ours / (ours + theirs) == pytest.approx(0.7, abs=0.01)


def test_the_splits_share_no_image_and_lose_none(digits):
    """Together they are scikit-learn's 1,797, each once; so no test image was trained on."""
    from sklearn.datasets import load_digits

    def rows(images, y):
        return sorted((*row, k) for row, k in zip(images, y))

    train, test = digits
    whole = torch.tensor(load_digits().images).mul(255 / 16).round().long()
    both = torch.cat([train.images, test.images]).long()
    assert rows(both.flatten(1).tolist(), torch.cat([train.y, test.y]).tolist()) == rows(whole.flatten(1).tolist(), load_digits().target.tolist())
    assert whole.flatten(1).unique(dim=0).shape[0] == 1797, "two equal images could hide in both splits"


def test_the_split_is_fixed(digits):
    """The same images in the same order every time."""
    assert all(torch.equal(a, b) for a, b in zip(digits[0][:2], data.load("digits", "train")[:2]))


def test_the_digits_have_17_grey_levels_from_black_to_white(digits):
    """0 … 16, stretched over 0 … 255."""
    assert torch.cat([split.images for split in digits]).unique().tolist() == [round(k * 255 / 16) for k in range(17)]


def test_the_digits_need_neither_folder_nor_network(tmp_path, monkeypatch):
    """They always work, also where the cache cannot exist; the internet of these tests is empty."""
    monkeypatch.setenv("DDPM_DATA", str(put(tmp_path, {"file": b""}) / "file" / "below"))
    assert len(data.load("digits").y) == 1257


def test_every_data_set_has_its_name_in_loaders():
    """The command line lists them."""
    assert list(data.LOADERS) == ["digits", "mnist", "fashion-mnist", "cifar10"]


# Resolution.

def test_an_image_of_the_right_size_is_left_alone():
    images = pixels(3, 2, 8, 8)
    assert torch.equal(data.resize(images, 8), images)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 9, 16, 23])
def test_a_constant_image_stays_constant(size):
    """All 256 of them, to every size: the weights sum to 1, and rounding is not truncation."""
    grey = torch.arange(256, dtype=torch.uint8)[:, None, None, None]
    resized = data.resize(grey.expand(256, 1, 8, 8), size)
    assert resized.dtype == torch.uint8 and torch.equal(resized, grey.expand(256, 1, size, size))


@pytest.mark.parametrize("factor", [2, 3, 4, 12])
def test_an_integer_factor_gives_block_means(factor):
    """So nothing aliases: a checkerboard becomes grey."""
    images = pixels(5, 3, 12, 12)
    means = images.double().unflatten(3, (-1, factor)).mean(4).unflatten(2, (-1, factor)).mean(3)
    assert (data.resize(images, 12 // factor).double() - means).abs().max() <= 0.5 + 1e-4


def test_a_pixel_that_is_cut_counts_in_both_parts():
    """3 pixels to 2: (2a + b)/3 and (b + 2c)/3; along rows and along columns."""
    row = torch.tensor([0, 90, 240], dtype=torch.uint8).expand(1, 1, 3, 3)
    assert data.resize(row, 2).tolist() == [[[[30, 190], [30, 190]]]]
    assert data.resize(row.mT, 2).tolist() == [[[[30, 30], [190, 190]]]]


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_enlarging_and_shrinking_by_an_integer_factor_gives_the_image_back(factor):
    """Progressive resolution: what was learnt at the low resolution is what the high one averages to."""
    images = pixels(4, 1, 7, 7)
    assert torch.equal(data.resize(data.resize(images, 7 * factor), 7), images)


def test_the_middle_square_is_kept():
    """Tall and wide images are cropped, not squeezed."""
    wide = torch.tensor([[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]], dtype=torch.uint8)[None, None]
    assert data.resize(wide, 2).tolist() == [[[[3, 4], [9, 10]]]]
    assert data.resize(wide.mT, 2).tolist() == [[[[3, 9], [4, 10]]]]


def test_many_images_keep_their_order():
    """They are resized in parts."""
    many = (torch.arange(2500) % 251).byte()[:, None, None, None]
    assert torch.equal(data.resize(many, 2)[:, :, 1, 1], many[:, :, 0, 0])


def test_every_data_set_comes_in_any_size(digits):
    """As `resize` makes it, in both splits, with the same labels."""
    for split, name in zip(digits, ("train", "test")):
        for size in (4, 16):
            resized = data.load("digits", name, size=size)
            assert torch.equal(resized.images, data.resize(split.images, size)) and torch.equal(resized.y, split.y)


@pytest.mark.parametrize("size, error", [(0, ValueError), (-4, ValueError), (1.5, TypeError), ("16", TypeError), (True, TypeError)])
def test_a_size_that_is_none_is_refused_before_the_download(size, error, tmp_path):
    with pytest.raises(error, match=f"size is {size!r}.*≥ 1"):
        data.load("mnist", folder=tmp_path, size=size)
    with pytest.raises(error, match=f"size is {size!r}.*≥ 1"):
        data.resize(pixels(1, 1, 4, 4), size)


@pytest.mark.parametrize("images", [torch.zeros(1, 1, 4, 4), torch.zeros(4, 4, dtype=torch.uint8)], ids=["floats", "no batch"])
def test_resize_wants_bytes_in_four_dimensions(images):
    with pytest.raises(TypeError, match=r"images are torch.*4, 4.*uint8 \(N, C, H, W\)"):
        data.resize(images, 2)


# MNIST, Fashion-MNIST, CIFAR-10.

@pytest.mark.parametrize("name, kind", KINDS.items())
def test_idx_files_are_read_from_a_torchvision_folder(name, kind, tmp_path):
    """FOLDER/MNIST/raw and FOLDER/FashionMNIST/raw, as torchvision leaves them: no download, nothing written, both splits apart."""
    train, test, files = mnist()
    put(tmp_path / kind / "raw", files)
    before = sorted(tmp_path.rglob("*"))
    for split, (images, y) in ("train", train), ("test", test):
        loaded = data.load(name, split, folder=tmp_path)
        assert torch.equal(loaded.images, images[:, None]) and loaded.images.dtype == torch.uint8
        assert torch.equal(loaded.y, y.long()) and loaded.y.dtype == torch.int64
    assert sorted(tmp_path.rglob("*")) == before
    small = data.load(name, folder=str(tmp_path), size=14)
    assert torch.equal(small.images, data.resize(train[0][:, None], 14))


def test_the_classes_have_names(tmp_path):
    """The digits' are those of `digits`; clothes have torchvision's."""
    for kind in KINDS.values():
        put(tmp_path / kind / "raw", mnist()[2])
    assert data.load("mnist", folder=tmp_path).classes == tuple("0123456789")
    clothes = data.load("fashion-mnist", folder=tmp_path).classes
    assert len(clothes) == 10 and clothes[0] == "T-shirt/top" and clothes[9] == "Ankle boot"


@pytest.fixture
def cifar(monkeypatch):
    """A small CIFAR-10: the two splits, and the files, with the checksums that torchvision expects."""
    import torchvision

    images, y = pixels(12, 3, 32, 32), torch.arange(12) % 10
    files = {"batches.meta": pickle.dumps({"label_names": list("abcdefghij")}, protocol=2)}
    for k, name in enumerate(["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]):
        part = slice(2 * k, 2 * k + 2)
        files[name] = pickle.dumps({"data": images[part].flatten(1).numpy(), "labels": y[part].tolist()}, protocol=2)
    kind = torchvision.datasets.CIFAR10
    monkeypatch.setattr(kind, "train_list", [[f"data_batch_{k}", md5(files[f"data_batch_{k}"])] for k in range(1, 6)])
    monkeypatch.setattr(kind, "test_list", [["test_batch", md5(files["test_batch"])]])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5(files["batches.meta"])})
    return (images[:10], y[:10]), (images[10:], y[10:]), {f"cifar-10-batches-py/{name}": content for name, content in files.items()}


def is_cifar(folder, cifar):
    for split, (images, y) in zip(("train", "test"), cifar):
        loaded = data.load("cifar10", split, folder=folder)
        assert torch.equal(loaded.images, images) and loaded.images.is_contiguous()
        assert torch.equal(loaded.y, y) and loaded.y.dtype == torch.int64 and loaded.classes == tuple("abcdefghij")
    return True


def test_cifar_is_read_from_a_torchvision_folder(cifar, tmp_path):
    """Red, green, blue; rows, columns: (N, 3, 32, 32)."""
    assert is_cifar(put(tmp_path, cifar[2]), cifar)


def test_cifar_is_downloaded_unpacked_and_its_archive_dropped(cifar, internet, monkeypatch, tmp_path):
    """170 MB twice would be a lot."""
    import torchvision

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in cifar[2].items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    internet.files = {"cifar-10-python.tar.gz": packed.getvalue()}
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", md5(packed.getvalue()))
    assert is_cifar(tmp_path, cifar) and os.listdir(tmp_path) == ["cifar-10-batches-py"]

    # Brought by hand, and without a network.
    asked, internet.files = len(internet.asked), {}
    assert asked == 1 and is_cifar(put(tmp_path / "other", {"cifar-10-python.tar.gz": packed.getvalue()}), cifar) and len(internet.asked) == asked


# The cache.

def test_the_cache_is_the_argument_else_the_environment_else_at_home(monkeypatch, tmp_path):
    """In this order; ~ is the home folder; an empty variable is none."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert data.cache() == tmp_path / ".cache" / "ddpm_tutorial" and data.cache("~/mine") == tmp_path / "mine"
    monkeypatch.setenv("DDPM_DATA", "")
    assert data.cache() == tmp_path / ".cache" / "ddpm_tutorial"
    monkeypatch.setenv("DDPM_DATA", str(tmp_path / "class"))
    assert data.cache() == tmp_path / "class" and data.cache(tmp_path / "mine") == data.cache(str(tmp_path / "mine")) == tmp_path / "mine"


def test_load_looks_where_the_cache_is(monkeypatch, tmp_path):
    """Three MNISTs in three places: home, $DDPM_DATA, argument."""
    places = [tmp_path / "home" / ".cache" / "ddpm_tutorial", tmp_path / "class", tmp_path / "mine"]
    first = [mnist(seed)[0][0] for seed in (0, 10, 20)]
    for seed, place in zip((0, 10, 20), places):
        put(place / "MNIST" / "raw", mnist(seed)[2])
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    assert torch.equal(data.load("mnist").images[:, 0], first[0])
    monkeypatch.setenv("DDPM_DATA", str(places[1]))
    assert torch.equal(data.load("mnist").images[:, 0], first[1])
    assert torch.equal(data.load("mnist", folder=places[2]).images[:, 0], first[2])


# Downloads.

def test_a_download_moves_in_whole(served, internet, tmp_path):
    """Nothing is in its place until all is there; afterwards nothing lies beside it, and nothing is fetched again."""
    folder, seen = tmp_path / "new" / "cache", []
    internet.between = lambda name: seen.append((folder / "MNIST").exists())
    assert is_mnist(folder, served)
    assert seen == [False] * 4 and internet.asked == [f"{name}.gz" for name in IDX]
    assert os.listdir(folder) == ["MNIST"] and set(IDX) <= set(os.listdir(folder / "MNIST" / "raw"))


REASONS = {"the line is cut": ConnectionResetError("reset by peer"), "the server stops": http.client.IncompleteRead(b"half", 99),
           "the disk is full": OSError(28, "No space left on device"), "the name is not found": urllib.error.URLError("name not known")}


@pytest.mark.parametrize("file", [f"{IDX[0]}.gz", f"{IDX[2]}.gz"], ids=["first", "third"])
@pytest.mark.parametrize("reason", REASONS.values(), ids=REASONS)
def test_a_failed_download_leaves_nothing_and_says_how_to_go_on(reason, file, served, internet, tmp_path):
    """What, where, why, and how to go on offline; when the network is back, the same call works."""
    halves = []

    def fail(name):
        if name == file:
            halves.extend(path.stat().st_size for path in tmp_path.rglob(name))
            raise reason

    internet.between = fail
    with pytest.raises(ConnectionError) as caught:
        data.load("mnist", folder=tmp_path)
    assert halves and all(0 < half < len(internet.files[file]) for half in halves), "half a file was never there, so nothing was tested"
    assert list(tmp_path.rglob("*")) == []
    words = str(caught.value)
    for word in ("mnist", str(tmp_path), str(reason), "offline", "DDPM_DATA", "--data digits", *(f"MNIST/raw/{name}.gz" for name in IDX)):
        assert word in words
    internet.between = lambda name: None
    assert is_mnist(tmp_path, served)


def test_a_download_that_ends_too_early_is_noticed(served, internet, tmp_path):
    """The server closes the line without a word: the checksum tells."""
    whole = internet.files[f"{IDX[2]}.gz"]
    internet.files[f"{IDX[2]}.gz"] = whole[:len(whole) // 2]
    with pytest.raises(ConnectionError, match=r"(?s)mnist.*orrupted.*offline"):
        data.load("mnist", folder=tmp_path)
    assert list(tmp_path.rglob("*")) == []
    internet.files[f"{IDX[2]}.gz"] = whole
    assert is_mnist(tmp_path, served)


def test_a_server_that_never_answers_is_not_waited_for_for_ever(internet, tmp_path, monkeypatch):
    """A proxy that takes the connection and is silent: the download fails, and the caller's time limit is what it was."""
    server = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setattr(data, "TIMEOUT", 0.2)
    before = socket.getdefaulttimeout()

    def urlopen(request, *args, **kwargs):
        with socket.create_connection(server.getsockname()) as line:
            return line.recv(1)

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    with server, pytest.raises(ConnectionError, match=r"mnist could not.*(timed out|Timeout)"):
        data.load("mnist", folder=tmp_path / "new" / "cache")
    assert socket.getdefaulttimeout() == before and list(tmp_path.iterdir()) == [], "the folders that were made for it are gone, too"


def test_ctrl_c_during_a_download_leaves_nothing(served, internet, tmp_path):
    """And stays a KeyboardInterrupt."""
    def stop(name):
        raise KeyboardInterrupt

    internet.between = stop
    with pytest.raises(KeyboardInterrupt):
        data.load("mnist", folder=tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_no_network_is_said_for_every_data_set(tmp_path):
    """With the files to bring. It is an OSError."""
    for name, file in ("mnist", "MNIST/raw/t10k"), ("fashion-mnist", "FashionMNIST/raw/t10k"), ("cifar10", "cifar-10-python.tar.gz"):
        with pytest.raises(OSError, match=rf"(?s){name} could not.*no network here.*{file}.*digits"):
            data.load(name, folder=tmp_path / name)


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    """A file where the folder should be."""
    put(tmp_path, {"file": b""})
    with pytest.raises(ConnectionError, match=r"mnist.*file: (FileExistsError|NotADirectoryError)"):
        data.load("mnist", folder=tmp_path / "file")


@pytest.mark.parametrize("name", [f"{name}.gz" for name in IDX])
def test_two_downloads_at_the_same_time_do_not_hurt_each_other(name, served, internet, tmp_path):
    """A second process begins and ends while the first has half a file: both get the data set, and it lies there once."""
    def meanwhile(which):
        if which == name:
            internet.between = lambda name: None
            assert is_mnist(tmp_path, served)

    internet.between = meanwhile
    assert is_mnist(tmp_path, served) and len(internet.asked) == 8, "the second process did not download"
    assert os.listdir(tmp_path) == ["MNIST"]


def test_a_part_of_a_data_set_is_completed(served, internet, tmp_path):
    """Two files are there, one cut archive that somebody else's download left, and a file that is not ours: that one stays."""
    files = mnist()[2]
    put(tmp_path / "MNIST" / "raw", {IDX[0]: files[IDX[0]], IDX[1]: files[IDX[1]], f"{IDX[2]}.gz": b"half", "notes.txt": b"mine"})
    assert is_mnist(tmp_path, served) and os.listdir(tmp_path) == ["MNIST"]
    assert (tmp_path / "MNIST" / "raw" / "notes.txt").read_bytes() == b"mine"


def test_a_failed_download_keeps_what_was_there(served, internet, tmp_path):
    """Files that were brought by hand are not thrown away because the others could not be fetched."""
    there = dict(list(internet.files.items())[:2])
    internet.files = {}
    put(tmp_path / "MNIST" / "raw", there)
    with pytest.raises(ConnectionError):
        data.load("mnist", folder=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == there


def test_archives_that_were_brought_by_hand_need_no_network(served, internet, tmp_path):
    """As the error says; and only what is not there is fetched."""
    archives = dict(internet.files)
    internet.files = {}
    put(tmp_path / "all" / "MNIST" / "raw", archives)
    assert is_mnist(tmp_path / "all", served)
    internet.files = archives
    put(tmp_path / "some" / "MNIST" / "raw", {name: archives[name] for name in list(archives)[:3]})
    assert is_mnist(tmp_path / "some", served) and internet.asked == [f"{IDX[3]}.gz"]


# Damage.

def cut(files, name, length):
    return files | {name: files[name][:length]}


DAMAGE = {
    "the last byte is missing": lambda files: cut(files, IDX[0], -1),
    "half a header": lambda files: cut(files, IDX[0], 9),
    "an empty file": lambda files: cut(files, IDX[0], 0),
    "too much": lambda files: files | {IDX[0]: files[IDX[0]] + b"\0"},
    "a web page": lambda files: files | {IDX[0]: b"<!DOCTYPE html><html>404: not found</html>"},
    "a label is missing": lambda files: files | {IDX[1]: idx(torch.zeros(59, dtype=torch.uint8))},
    "a label that is no class": lambda files: files | {IDX[1]: idx(torch.full((60,), 10, dtype=torch.uint8))},
    "images and labels are swapped": lambda files: files | {IDX[0]: files[IDX[1]], IDX[1]: files[IDX[0]]},
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_idx_files_are_refused(damage, served, tmp_path):
    """With the folder, and what to do; and when it is done, the data set is whole again."""
    put(tmp_path / "MNIST" / "raw", damage(mnist()[2]))
    with pytest.raises(ValueError, match=r"mnist in .* is damaged.*delete that folder") as caught:
        data.load("mnist", folder=tmp_path)
    assert f"{tmp_path / 'MNIST'} " in str(caught.value)
    shutil.rmtree(tmp_path / "MNIST")
    assert is_mnist(tmp_path, served)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_damaged_cifar_files_are_refused(name, cifar, tmp_path):
    """Pickles are opened only after their checksum was compared: one byte is enough."""
    name = f"cifar-10-batches-py/{name}"
    put(tmp_path, cifar[2] | {name: cifar[2][name][:-1] + b"?"})
    with pytest.raises(ValueError, match=r"cifar10 in .*cifar-10-batches-py is damaged.*delete that folder"):
        data.load("cifar10", folder=tmp_path)


def test_a_file_that_may_not_be_read_is_not_called_damaged(monkeypatch, tmp_path):
    """Else somebody deletes a good data set."""
    def forbidden(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("torchvision.datasets.mnist.read_image_file", forbidden)
    put(tmp_path / "MNIST" / "raw", mnist()[2])
    with pytest.raises(PermissionError, match="train-images"):
        data.load("mnist", folder=tmp_path)


# A folder of images.

def png(path, array, mode=None):
    """Write (H, W) or (H, W, channels)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(array, dtype=np.uint8))
    (image.convert(mode) if mode else image).save(path)


def grey(value, height=4, width=4):
    return np.full((height, width), value)


def numbered(root, sizes):
    """Class folders with so many images each, every image of another grey value, which is returned: {class: values in the order of names}."""
    value, values = 0, {}
    for name, n in sizes.items():
        values[name] = list(range(value, value + n))
        for i in reversed(range(n)):                            # the last one first: the file system's order is not the names'
            png(root / name / f"{i:03}.png", grey(value + i))
        value += n
    return values


def greys(dataset):
    """Of constant images: {class: values in order}."""
    return {name: [int(v) for v in dataset.images[dataset.y == k, 0, 0, 0]] for k, name in enumerate(dataset.classes)}


def test_class_folders_become_labels_in_sorted_order(tmp_path):
    """Sorted as names, not as paths ("a-b/" comes before "a/") and not as numbers; files in the order of their names."""
    values = numbered(tmp_path, {"b": 3, "a-b": 2, "a": 4, "10": 1, "9": 2, "Z": 1})
    loaded = data.load(tmp_path)
    assert loaded.classes == ("10", "9", "Z", "a", "a-b", "b") and loaded.y.tolist() == [0, 1, 1, 2, 3, 3, 3, 3, 4, 4, 5, 5, 5]
    assert greys(loaded) == values and loaded.y.dtype == torch.int64
    assert all(torch.equal(a, b) for a, b in zip(loaded[:2], data.load(str(tmp_path))[:2]))


def test_grey_files_give_one_channel_and_every_pixel_is_kept(tmp_path):
    """(N, 1, H, W), height before width."""
    images = pixels(3, 4, 6)
    for i, image in enumerate(images):
        png(tmp_path / "a" / f"{i}.png", image)
    loaded = data.load(tmp_path)
    assert torch.equal(loaded.images, images[:, None]) and loaded.images.dtype == torch.uint8


def test_colour_files_give_three_channels(tmp_path):
    """(N, 3, H, W): red, green, blue."""
    images = pixels(3, 4, 6, 3)
    for i, image in enumerate(images):
        png(tmp_path / "a" / f"{i}.png", image)
    assert torch.equal(data.load(tmp_path).images, images.permute(0, 3, 1, 2))


@pytest.mark.parametrize("coloured", [0, 4, 9])
def test_one_colour_file_makes_all_of_them_rgb(coloured, tmp_path):
    """In both splits, whichever of them it is in (number 4 is for testing): one model takes both."""
    for i in range(10):
        png(tmp_path / "a" / f"{i}.png", np.dstack([grey(i), grey(100), grey(200)]) if i == coloured else grey(i))
    train, test = data.load(tmp_path), data.load(tmp_path, "test")
    assert train.images.shape == (9, 3, 4, 4) and test.images.shape == (1, 3, 4, 4)
    middle = torch.cat([train.images, test.images])[:, :, 0, 0].tolist()
    assert sorted(middle) == sorted([i, 100, 200] if i == coloured else [i, i, i] for i in range(10))


def test_a_folder_without_class_folders_is_one_class(tmp_path, monkeypatch):
    """Named after the folder, also when that is the one we are in."""
    numbered(tmp_path, {"flowers": 3})
    assert greys(data.load(tmp_path / "flowers")) == {"flowers": [0, 1, 2]}
    monkeypatch.chdir(tmp_path / "flowers")
    assert data.load(".").classes == data.load(Path(".")).classes == ("flowers",)


def test_a_path_is_never_a_name(tmp_path, monkeypatch):
    """Path("digits") is a folder, "digits" is the data set."""
    numbered(tmp_path, {"digits": 2})
    monkeypatch.chdir(tmp_path)
    assert len(data.load(Path("digits")).y) == 2 and len(data.load("digits").y) == 1257


@pytest.mark.parametrize("n, for_testing", [(4, 0), (5, 1), (10, 1), (14, 1), (15, 2), (100, 10)])
def test_a_tenth_of_each_class_is_for_testing(n, for_testing, tmp_path):
    """Rounded; no image is in both splits, and none is lost."""
    values = numbered(tmp_path, {"few": 20, "many": n})
    train, test = greys(data.load(tmp_path)), greys(data.load(tmp_path, "test"))
    assert len(test["many"]) == for_testing and len(test["few"]) == 2
    for name in values:
        assert sorted(train[name] + test[name]) == values[name]


def test_the_split_depends_on_the_names_only(tmp_path):
    """Other pixels, other times, another folder, another number of classes: the same files are for testing."""
    numbered(tmp_path / "one", {"a": 23})
    numbered(tmp_path / "two", {"0": 7, "a": 23, "z": 11})
    for i in range(23):
        os.utime(tmp_path / "two" / "a" / f"{i:03}.png", (i * 7919 % 23,) * 2)
    one, two = greys(data.load(tmp_path / "one", "test"))["a"], greys(data.load(tmp_path / "two", "test"))["a"]
    assert [v - 7 for v in two] == one == [4, 14]


def test_folders_train_and_test_are_used_as_they_are(tmp_path):
    """All of both, and labels mean the same in both, also if a class has no test image."""
    train, test = numbered(tmp_path / "train", {"a": 10, "b": 5, "c": 1}), numbered(tmp_path / "test", {"c": 6, "b": 1})
    assert greys(data.load(tmp_path)) == train
    assert greys(data.load(tmp_path, "test")) == test | {"a": []} and data.load(tmp_path, "test").classes == ("a", "b", "c")
    numbered(tmp_path / "flat", {"train": 10, "test": 2})
    assert greys(data.load(tmp_path / "flat")) == {"flat": list(range(10))} and greys(data.load(tmp_path / "flat", "test")) == {"flat": [10, 11]}


def warned(folder, split="train", **options):
    """What a folder makes, and the one line that says what was not as expected."""
    with pytest.warns(UserWarning) as caught:
        loaded = data.load(folder, split, **options)
    line = str(caught[0].message)
    assert len(caught) == 1 and "\n" not in line and line.startswith(str(folder))
    return loaded, line.replace("\\", "/")


def test_what_is_left_out_is_said_in_one_line(tmp_path):
    """By suffix, with an example and the reason: notes, thumbnails, hidden files and folders (Jupyter's, macOS's), at every depth."""
    numbered(tmp_path, {"a": 2})
    os.rename(tmp_path / "a" / "000.png", tmp_path / "a" / "000.PNG")
    for path in "README.md", "a/labels.csv", "a/more.csv", "a/._000.png", ".ipynb_checkpoints/000-checkpoint.png", "a/.ipynb_checkpoints/x.png":
        put(tmp_path, {path: b"no image"})
    loaded, line = warned(tmp_path)
    assert greys(loaded) == {"a": [0, 1]}
    assert "because not PNG, JPEG, BMP, GIF, WEBP, TIFF or PPM; save pictures as one of these: 1 .md (README.md), 2 .csv (a/labels.csv)" in line
    assert "because hidden: 2 folder (.ipynb_checkpoints), 1 .png (a/._000.png)" in line


def test_a_folder_that_is_as_expected_is_read_without_a_word(tmp_path):
    """A warning that always comes is read by nobody."""
    numbered(tmp_path, {"a": 2, "b": 3})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.load(tmp_path)


def test_images_are_known_by_their_content(tmp_path):
    """What browsers save as .jfif, and what has no suffix or a wrong one, is an image if it is one."""
    for k, name in enumerate(("x.jfif", "no_suffix", "a.dat", "png_in_truth.jpg")):
        png(tmp_path / "a" / "x.png", grey(40 * k))
        os.rename(tmp_path / "a" / "x.png", tmp_path / "a" / name)
    assert sorted(greys(data.load(tmp_path))["a"]) == [0, 40, 80, 120]


def test_pictures_that_cannot_be_opened_are_named_with_the_remedy(tmp_path):
    """A telephone's HEIC files; a camera's raw ones, which open as TIFF and would show their thumbnail of another size."""
    numbered(tmp_path, {"a": 1, "b": 1})
    put(tmp_path, {"a/1.heic": b"\0\0\0\x18ftypheic", "b/2.HEIC": b"\0\0\0\x18ftypheic"})
    Image.fromarray(np.uint8(grey(3))).save(tmp_path / "a" / "3.tiff")
    os.rename(tmp_path / "a" / "3.tiff", tmp_path / "a" / "3.NEF")
    loaded, line = warned(tmp_path)
    assert greys(loaded) == {"a": [0], "b": [1]}
    assert "save pictures as one of these: 2 .heic (a/1.heic)" in line and "raw; save them as PNG or JPEG: 1 .nef (a/3.NEF)" in line


def test_postscript_is_never_run(tmp_path, monkeypatch):
    """An EPS called x.png: Pillow, asked for any format, starts Ghostscript, a programming language, for it."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **options: pytest.fail("Ghostscript was started"))
    numbered(tmp_path, {"a": 1})
    put(tmp_path, {"a/x.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n"})
    with pytest.raises(ValueError, match=r"x\.png cannot be read as an image"):
        data.load(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such files")
def test_a_pipe_in_the_folder_is_not_waited_for(tmp_path):
    """To open it would wait for somebody who writes, for ever."""
    numbered(tmp_path, {"a": 1})
    os.mkfifo(tmp_path / "a" / "x.png")
    loaded, line = warned(tmp_path)
    assert greys(loaded) == {"a": [0]} and "no file: 1 .png (a/x.png)" in line


def linked(link, target):
    try:
        link.symlink_to(target)
    except OSError:
        pytest.skip("this system lets nobody make links")


def test_links_are_followed_but_not_in_circles(tmp_path):
    """A class may lie on another disk; a link to nothing and one that leads back are said."""
    numbered(tmp_path / "disk", {"cats": 3})
    numbered(tmp_path / "photos", {"dogs": 2})
    linked(tmp_path / "photos" / "cats", tmp_path / "disk" / "cats")
    assert greys(data.load(tmp_path / "photos")) == {"cats": [0, 1, 2], "dogs": [0, 1]}
    linked(tmp_path / "photos" / "dogs" / "again", tmp_path / "photos")
    linked(tmp_path / "photos" / "dogs" / "lost.png", tmp_path / "nowhere.png")
    loaded, line = warned(tmp_path / "photos")
    assert greys(loaded) == {"cats": [0, 1, 2], "dogs": [0, 1]}
    assert "leads back: 1 folder (dogs/again)" in line and "no file: 1 .png (dogs/lost.png)" in line


@pytest.mark.parametrize("files", [{}, {"dogs/notes.txt": b""}, {"dogs/1.heic": b"heic"}], ids=["nothing", "notes", "photographs of a telephone"])
def test_a_class_without_images_is_refused_by_name(files, tmp_path):
    """Left out in silence, it would shift the labels of all that come after it."""
    numbered(tmp_path, {"cats": 2, "zebras": 2})
    (tmp_path / "dogs").mkdir()
    put(tmp_path, files)
    with pytest.raises(ValueError, match=r"no images in the class folder .*dogs.*add some, or take it away"):
        data.load(tmp_path)


def test_a_folder_that_may_not_be_read_is_refused_by_name(tmp_path, monkeypatch):
    numbered(tmp_path, {"cats": 2, "dogs": 2})
    listed = Path.iterdir

    def iterdir(self):
        if self.name == "dogs":
            raise PermissionError(13, "Permission denied", str(self))
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(PermissionError, match="dogs"):
        data.load(tmp_path)


@pytest.mark.parametrize("names", [("Train", "TEST"), ("training", "testing"), ("train", "val"), ("train", "Validation")], ids="-".join)
def test_splits_are_known_by_many_names(names, tmp_path):
    """In capitals and small letters, on every system: never as two classes called Train and TEST."""
    train, test = numbered(tmp_path / names[0], {"a": 4, "b": 2}), numbered(tmp_path / names[1], {"a": 1, "b": 1})
    assert greys(data.load(tmp_path)) == train and greys(data.load(tmp_path, "test")) == test


def test_what_lies_beside_the_splits_is_said(tmp_path):
    """A third split is neither trained on nor tested on."""
    for split in ("train", "test", "val"):
        numbered(tmp_path / split, {"a": 2})
    loaded, line = warned(tmp_path)
    assert len(loaded.y) == 2 and line.endswith("because beside train and test: 1 folder (val)")


@pytest.mark.parametrize("name", ["val", "Train", "TEST", "dev"])
def test_one_split_alone_is_no_class(name, tmp_path):
    """cats, dogs and val: three classes would be learnt."""
    numbered(tmp_path, {"cats": 5, "dogs": 5, name: 5})
    with pytest.raises(ValueError, match=f"a folder {name} only, which is called like a split.*rename it if it is a class"):
        data.load(tmp_path)


def test_splits_within_a_class_are_refused(tmp_path):
    """cats/train and cats/test: read as one class, a tenth of which is for testing, the test images would be trained on."""
    for split in ("train", "test"):
        numbered(tmp_path / "cats", {split: 5})
        numbered(tmp_path / "dogs", {split: 5})
    with pytest.raises(ValueError, match=r"within a class; put train and test above the classes"):
        data.load(tmp_path)


def test_a_level_more_than_expected_is_found_and_said(tmp_path):
    """As an archive unpacks itself: photos/photos/cats. Also above train and test, and within them."""
    values = numbered(tmp_path / "plain" / "photos", {"cats": 4, "dogs": 3})
    loaded, line = warned(tmp_path / "plain")
    assert greys(loaded) == values and line.endswith("the classes are one level deeper: 1 folder (photos)")
    for split in ("train", "test"):
        numbered(tmp_path / "splits" / "archive" / split / "images", {"cats": 2, "dogs": 1})
    loaded, line = warned(tmp_path / "splits")
    assert greys(loaded) == {"cats": [0, 1], "dogs": [2]} and "one level deeper" in line


def test_folders_in_class_folders_belong_to_the_class(tmp_path):
    """And that is said."""
    numbered(tmp_path / "a", {"x": 2, "y": 2})
    numbered(tmp_path, {"b": 1})
    loaded, line = warned(tmp_path)
    assert loaded.classes == ("a", "b") and loaded.y.tolist() == [0, 0, 0, 0, 1]
    assert line.endswith("taken for the class, but one level deeper: 4 .png (a/x/000.png)")


def test_of_a_moving_picture_the_first_frame_is_taken(tmp_path):
    """And that is said."""
    (tmp_path / "a").mkdir()
    Image.fromarray(np.uint8(grey(7))).save(tmp_path / "a" / "x.gif", save_all=True, append_images=[Image.fromarray(np.uint8(grey(200)))])
    loaded, line = warned(tmp_path)
    assert len(loaded.y) == 1 and line.endswith("only the first frame taken: 1 .gif (a/x.gif)")


def test_a_fingerprint_is_of_images_and_labels(digits):
    """One pixel, one label, or one image less: another one; the same data: the same one."""
    whole = digits[0]
    pixel, label = whole.images.clone(), whole.y.clone()
    pixel[0, 0, 0, 0] += 1
    label[0] = (label[0] + 1) % 10
    others = [whole._replace(images=pixel), whole._replace(y=label), whole._replace(images=whole.images[1:], y=whole.y[1:])]
    assert len({data.fingerprint(d) for d in (whole, *others)}) == 4 and data.fingerprint(whole) == data.fingerprint(data.load("digits"))


def test_images_of_different_sizes_need_a_size(tmp_path):
    """The error names two of them; with a size, the middle squares are resized."""
    striped = np.full((4, 8), 7)
    striped[:, 2:6] = 200                                       # the middle square is constant
    png(tmp_path / "a" / "small.png", grey(100))
    png(tmp_path / "a" / "wide.png", striped)
    with pytest.raises(ValueError, match=r"small\.png is 4×4.*wide\.png is 4×8.*size"):
        data.load(tmp_path)
    for size in (1, 2, 4, 8):
        loaded = data.load(tmp_path, size=size)
        assert loaded.images.shape == (2, 1, size, size) and greys(loaded) == {"a": [100, 200]} and loaded.images[1].unique().tolist() == [200]


def test_the_splits_must_have_one_size_too(tmp_path):
    """A model that was trained on one could not be measured on the other."""
    png(tmp_path / "train" / "a" / "x.png", grey(1))
    png(tmp_path / "test" / "a" / "y.png", grey(1, 5, 5))
    with pytest.raises(ValueError, match=r"x\.png is 4×4.*y\.png is 5×5"):
        data.load(tmp_path, "test")


@pytest.mark.parametrize("keep", [0, 20, 60, 200])
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp"])
def test_a_broken_image_is_named(suffix, keep, tmp_path):
    """Cut at nothing, in the header, in the pixels: never half an image."""
    numbered(tmp_path, {"a": 3})
    png(tmp_path / "a" / f"broken.{suffix}", pixels(32, 32))
    path = tmp_path / "a" / f"broken.{suffix}"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"broken\.{suffix} cannot be read as an image"):
        data.load(tmp_path)


def test_pictures_of_cameras_stand_upright(tmp_path):
    """A telephone stores the picture lying and writes "turn me" beside it (EXIF orientation 6: 90° clockwise)."""
    image = Image.fromarray(np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / "x.png", exif=exif)
    assert data.load(tmp_path).images.tolist() == [[[[4, 1], [5, 2], [6, 3]]]]


def test_transparency_is_shown_on_white(tmp_path):
    """What lies behind it is arbitrary: here red. Grey with transparency stays grey."""
    png(tmp_path / "rgba" / "x.png", [[[255, 0, 0, 0], [1, 2, 3, 255]]])
    png(tmp_path / "la" / "x.png", [[[9, 0], [7, 255]]])
    assert data.load(tmp_path / "rgba").images[0, :, 0].T.tolist() == [[255, 255, 255], [1, 2, 3]]
    assert data.load(tmp_path / "la").images.tolist() == [[[[255, 7]]]]


def test_16_bits_are_refused(tmp_path):
    """Pillow would clip them, and the image would be white."""
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((4, 4), 40000, dtype=np.uint16)).save(tmp_path / "a" / "x.png")
    with pytest.raises(ValueError, match=r"x\.png.*8 bits"):
        data.load(tmp_path)


def only_train(root):
    numbered(root / "train", {"a": 1})


def strange_class(root):
    numbered(root / "train", {"a": 1})
    numbered(root / "test", {"a": 1, "zebra": 1})


def loose_images(root):
    numbered(root, {"a": 1})
    png(root / "loose.png", grey(0))


WRONG = {
    "an empty folder": (lambda root: None, "train", "no images.*PNG"),
    "a folder of other things": (lambda root: put(root, {"notes.txt": b""}), "train", r"no images.*PNG.*1 .txt \(notes.txt\)"),
    "too few to test": (lambda root: numbered(root, {"a": 4, "b": 1}), "test", "5 images or more.*train and test"),
    "train without test": (only_train, "train", "train only.*both.*neither"),
    "an empty test": (lambda root: only_train(root) or (root / "test").mkdir(), "train", "no images.*test"),
    "a class of test that train has not": (strange_class, "train", "zebra"),
    "images beside class folders": (loose_images, "train", r"both images \(loose\.png\) and folders of images \(a\)"),
}


@pytest.mark.parametrize("make, split, words", WRONG.values(), ids=WRONG)
def test_a_folder_that_makes_no_data_set_is_refused(make, split, words, tmp_path):
    make(tmp_path)
    with pytest.raises(ValueError, match=f"(?s){words}") as caught:
        data.load(tmp_path, split)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["mnits", "nowhere/at/all", Path("mnist")], ids=["a slip", "no such folder", "a path"])
def test_a_name_that_is_nothing_is_told_the_names_and_the_folders(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"unknown data set.*digits, mnist, fashion-mnist, cifar10.*path of a folder"):
        data.load(name)


@pytest.mark.parametrize("name", ["digits", "mnist", Path(".")])
def test_only_two_splits_exist(name):
    with pytest.raises(ValueError, match=r"'val'.*train or test"):
        data.load(name, "val")

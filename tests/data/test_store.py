"""The store: patches against padding and slicing, foreground against the label map, and damaged files."""

from __future__ import annotations

import mmap
import pickle
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from helpers.broken import flip
from helpers.volumes import affine_of, scan, write_case

from mixcl.config.settings import Collection, DataConfig, Experiment
from mixcl.data import arrays
from mixcl.data.arrays import draw_foreground
from mixcl.data.patches import prefetch, read_patch
from mixcl.data.prepare.run import prepare
from mixcl.data.store import Case, Store, verify
from mixcl.errors import InputError
from mixcl.files import read_sealed, write_sealed

NAMES = {1: "one", 3: "three", 7: "never"}
HU = (-150.0, 250.0)


def settings(root: Path, **changes: object) -> DataConfig:
    own = {name: Collection(root=name, names=NAMES) for name in ("a", "b")}
    values = {"root": str(root), "collections": own, "pretrain": ("a",), "finetune": ("b",), **changes}
    return DataConfig.model_validate(values)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[DataConfig, Path]:
    """Two collections, of two cases and one."""
    root = tmp_path_factory.mktemp("raw")
    for seed, (name, case) in enumerate([("a", "c10"), ("a", "c9"), ("b", "x")]):
        write_case(root / name, case, *scan((30, 26, 22), seed, values=(1, 3)))
    data, out = settings(root), tmp_path_factory.mktemp("out")
    prepare(Experiment(data=data), out, progress=False)
    return data, out


@pytest.fixture
def store(made: tuple[DataConfig, Path]) -> Store:
    return Store(made[0].store_dir(made[1]))


@pytest.fixture
def copy(made: tuple[DataConfig, Path], tmp_path: Path) -> Path:
    """A store that may be broken."""
    import shutil

    return Path(shutil.copytree(made[0].store_dir(made[1]), tmp_path / "store"))


def test_collections_and_cases_in_natural_order(store: Store) -> None:
    assert store.collections == ("a", "b")
    assert [case.id for case in store.cases("a")] == ["c9", "c10"]
    case = store.cases("a")[0]
    assert case.names == NAMES
    assert case.collection == "a"
    assert case.spacing == (1.5, 1.5, 2.0)
    assert case.affine.shape == case.source_affine.shape == (4, 4)


def test_arrays(store: Store) -> None:
    for case in (*store.cases("a"), *store.cases("b")):
        image, label = case.image(), case.label()
        assert image.dtype == np.int16
        assert label.dtype == np.uint8
        assert image.shape == label.shape == case.shape
        assert image.flags.c_contiguous
        assert isinstance(image, np.memmap)
        assert image.min() >= HU[0]
        assert image.max() <= HU[1]
        with pytest.raises(ValueError, match="read-only"):
            label[0, 0, 0] = 1


@pytest.mark.parametrize("size", [1, 8, 40])
def test_patch_is_a_slice_of_the_padded_scan(store: Store, size: int) -> None:
    case = store.cases("a")[0]
    pad = 60
    scaled = (np.asarray(case.image(), np.float64) + 150) / 400
    padded = np.pad(scaled, pad), np.pad(case.label(), pad)
    rng = np.random.default_rng(size)
    origins = [rng.integers(-size - 5, n + 5) for n in case.shape for _ in range(20)]
    for origin in np.reshape(origins, (3, 20)).T:
        image, label = read_patch(case, origin.tolist(), size, HU)
        box = tuple(slice(pad + o, pad + o + size) for o in origin)
        assert image.dtype == np.float32
        assert label.dtype == np.uint8
        np.testing.assert_allclose(image, padded[0][box], atol=1e-6)
        np.testing.assert_array_equal(label, padded[1][box])


def test_patch_in_a_narrower_window_is_clipped(store: Store) -> None:
    case = store.cases("a")[0]
    image, _ = read_patch(case, (0, 0, 0), 16, (0, 100))
    expected = np.clip(np.asarray(case.image()[:16, :16, :16], float), 0, 100) / 100
    np.testing.assert_allclose(image[:, :, : expected.shape[2]], expected, atol=1e-6)


def test_patch_does_not_share_memory_with_the_store(store: Store) -> None:
    image, label = read_patch(store.cases("a")[0], (0, 0, 0), 8, HU)
    image[:], label[:] = 5, 5
    again, _ = read_patch(store.cases("a")[0], (0, 0, 0), 8, HU)
    assert again.max() <= 1


def test_patch_is_cut_into_what_is_there(store: Store) -> None:
    """A row of a batch that was used before: the part outside the scan is cleared."""
    case = store.cases("a")[0]
    batch = np.full((2, 24, 24, 24), 7, np.float32), np.full((2, 24, 24, 24), 7, np.uint8)
    for row, origin in enumerate([(-6, 3, 0), (500, 0, 0)]):
        expected = read_patch(case, origin, 24, HU)
        assert read_patch(case, origin, 24, HU, out=(batch[0][row], batch[1][row]))[0].base is batch[0]
        np.testing.assert_array_equal(batch[0][row], expected[0])
        np.testing.assert_array_equal(batch[1][row], expected[1])


def test_a_box_is_asked_for_whole_before_it_is_read(store: Store) -> None:
    """What the system is asked to bring holds every byte of the box, and hardly more than its rows."""
    case, asked = store.cases("a")[0], np.zeros(1 << 20, bool)

    if not hasattr(mmap, "MADV_WILLNEED"):
        pytest.skip("this system takes no such hints")

    class Map(mmap.mmap):
        def madvise(self, option: int, start: int, length: int) -> None:
            assert option == mmap.MADV_WILLNEED
            assert start % mmap.PAGESIZE == 0
            asked[start : start + length] = True

    with (case.path / "image.npy").open("rb") as stream:
        mapped = Map(stream.fileno(), 0, access=mmap.ACCESS_READ)
    array = np.ndarray.__new__(np.memmap, case.shape, np.int16, mapped, offset=128)
    array.offset = 128
    np.testing.assert_array_equal(array, case.image())
    box = (slice(3, 9), slice(4, 11), slice(2, 12))
    prefetch(array, box)
    numbers = np.arange(array.size).reshape(case.shape)[box].ravel() * 2 + 128
    assert asked[numbers].all()
    assert asked[numbers + 1].all()
    assert asked.sum() <= 6 * (7 * 2 * case.shape[2] + mmap.PAGESIZE)


def test_patches_do_not_hold_the_scan_in_memory(tmp_path: Path) -> None:
    """Cutting everywhere from 48 MB of arrays leaves this process with little more than it had."""
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("this system does not tell the memory of a process by kind")
    write_case(tmp_path / "a", "c", *scan((256, 256, 256)), affine_of((1.5, 1.5, 2.0)))
    data = settings(tmp_path, finetune=())
    prepare(Experiment(data=data), tmp_path, workers=1, progress=False)
    (case,) = Store(data.store_dir(tmp_path)).cases("a")

    def mapped() -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("RssFile"))

    before = mapped()
    for place in np.ndindex(4, 4, 4):
        read_patch(case, [64 * k for k in place], 64, HU)
    assert mapped() - before < 5_000  # kB


def test_foreground_points_at_its_label(store: Store) -> None:
    case = store.cases("a")[0]
    label = np.asarray(case.label())
    points = case.foreground()
    assert list(points) == [value for value in np.unique(label).tolist() if value]
    for value, voxels in points.items():
        assert voxels.dtype == np.int32
        assert (label[tuple(voxels.T)] == value).all()
        assert len(np.unique(voxels, axis=0)) == len(voxels) == min(4096, (label == value).sum())


def test_foreground_of_a_large_label_is_a_fair_sample() -> None:
    label = np.zeros((60, 50, 40), np.uint8)
    label[10:50, 10:40] = 2
    first = draw_foreground(label, "a" * 64)[2]
    assert len(first) == len(np.unique(first, axis=0)) == 4096
    np.testing.assert_array_equal(first, draw_foreground(label, "a" * 64)[2])
    assert not np.array_equal(first, draw_foreground(label, "b" * 64)[2])
    order = np.ravel_multi_index(first.T, label.shape)
    assert (np.diff(order) > 0).all()
    centre = np.argwhere(label == 2).mean(axis=0)
    assert np.abs(first.mean(axis=0) - centre).max() < 1  # the spread of the mean is 40 / sqrt(12 * 4096) = 0.2


def test_cases_travel_to_other_processes(store: Store) -> None:
    case = store.cases("a")[0]
    twin: Case = pickle.loads(pickle.dumps(case))
    np.testing.assert_array_equal(twin.image(), case.image())


def test_fingerprint(made: tuple[DataConfig, Path], store: Store, copy: Path, tmp_path: Path) -> None:
    assert Store(copy).fingerprint() == store.fingerprint()  # where it lies does not matter
    assert store.fingerprint(["a"]) != store.fingerprint(["b"]) != store.fingerprint()
    other = made[0].model_copy(update={"hu": (-100.0, 250.0), "store": str(tmp_path / "other")})
    prepare(Experiment(data=other), tmp_path, progress=False)
    assert Store(tmp_path / "other").fingerprint() != store.fingerprint()


def test_not_prepared(tmp_path: Path, store: Store) -> None:
    with pytest.raises(InputError, match="nothing is prepared here; run mixcl prepare"):
        Store(tmp_path)
    with pytest.raises(InputError, match="the collection 'c' is not prepared, or not to its end; run mixcl prepare"):
        store.cases("c")
    with pytest.raises(InputError, match="'c' is not prepared"):
        Store(store.root, ["a", "c"])


def test_other_settings(made: tuple[DataConfig, Path], store: Store) -> None:
    Store(store.root, ["a"], made[0])
    other = made[0].model_copy(update={"spacing": (3.0, 3.0, 3.0)})
    with pytest.raises(InputError, match=r"spacing \(1.5, 1.5, 2.0\) mm .* not \(3.0, 3.0, 3.0\) .*run mixcl prepare"):
        Store(store.root, ["a"], other)


def test_case_of_other_settings_than_its_collection(copy: Path) -> None:
    path = copy / "a/c9/case.json"
    write_sealed(path, {**read_sealed(path), "settings": "0"})
    with pytest.raises(InputError, match="c9: was prepared with other settings than the rest"):
        Store(copy).cases("a")


@pytest.mark.parametrize("name", ["image.npy", "label.npy", "foreground.npz"])
def test_truncated_file(copy: Path, name: str) -> None:
    path = copy / "a/c9" / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=rf"{name}: has \d+ bytes instead of \d+; delete .*c9 and run mixcl prepare"):
        Store(copy).cases("a")


@pytest.mark.parametrize("name", ["image.npy", "label.npy", "foreground.npz"])
def test_file_that_breaks_while_it_is_used(copy: Path, name: str) -> None:
    case = Store(copy).cases("a")[0]
    (case.path / name).write_bytes(b"")
    with pytest.raises(InputError, match=f"{name}: cannot be read"):
        {"image.npy": case.image, "label.npy": case.label, "foreground.npz": case.foreground}[name]()


@pytest.mark.parametrize("name", ["image.npy", "label.npy"])
@pytest.mark.parametrize("change", ["flipped", "zeroed"])
def test_voxels_that_are_not_those_that_were_stored(copy: Path, name: str, change: str) -> None:
    """Training would go on with them: the file is as long as it was."""
    case = Store(copy).cases("a")[0]
    file = case.path / name
    if change == "flipped":
        flip(file)
    else:
        file.write_bytes(file.read_bytes()[:128] + bytes(file.stat().st_size - 128))
    with pytest.raises(InputError, match=rf"{name}: its voxels are not those .* mixcl data prepare --verify"):
        read_patch(case, (0, 0, 0), 8, HU)
    with pytest.raises(InputError, match=name):
        verify([case])


def test_foreground_that_was_flipped(copy: Path) -> None:
    case = Store(copy).cases("a")[0]
    flip(case.path / "foreground.npz", 400)
    with pytest.raises(InputError, match=r"foreground\.npz: cannot be read"):
        case.foreground()


def test_a_small_archive_of_points_that_unpacks_to_much(tmp_path: Path) -> None:
    path = tmp_path / "foreground.npz"
    np.savez_compressed(path, **{"1": np.zeros((10**7, 3), np.int32)})
    with pytest.raises(InputError, match="unpacks to more than was ever stored"):
        arrays.read_points(path)


@pytest.mark.parametrize("name", ["case.json", "index.json"])
def test_a_digit_of_a_record_that_was_changed(copy: Path, name: str) -> None:
    path = copy / "a" / ("c9/case.json" if name == "case.json" else name)
    path.write_text(path.read_text().replace("1.5", "1.6", 1))
    with pytest.raises(InputError, match=rf"{name}: cannot be read \(its checksum"):
        Store(copy).cases("a")


def test_a_case_is_compared_once_in_a_process(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[object] = []
    content_of = arrays.content_of
    monkeypatch.setattr(arrays, "content_of", lambda array: compared.append(array.shape) or content_of(array))
    cases = Store(copy).cases("a")
    verify(cases)
    assert len(compared) == 2 * len(cases)
    verify(cases)
    read_patch(cases[0], (0, 0, 0), 8, HU)
    assert len(compared) == 2 * len(cases)


def test_a_file_that_is_cut_while_it_is_mapped(copy: Path) -> None:
    """Its voxels would end the process with SIGBUS; each patch looks at the size first."""
    case = Store(copy).cases("a")[0]
    read_patch(case, (0, 0, 0), 8, HU)
    with (case.path / "image.npy").open("r+b") as file:
        file.truncate(4096)
    with pytest.raises(InputError, match=r"image\.npy: cannot be read \(has 4096 bytes instead of"):
        read_patch(case, (2, 2, 2), 8, HU)


@pytest.mark.parametrize("name", ["image.npy", "label.npy", "foreground.npz", "case.json"])
def test_verify_mends_what_is_damaged(
    made: tuple[DataConfig, Path], copy: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`mixcl data prepare` keeps what has the size and date of before; with --verify it looks at every voxel."""
    data = made[0].model_copy(update={"store": str(copy)})
    whole = {path.name: path.read_bytes() for path in (copy / "a/c9").iterdir()}
    flip(copy / "a/c9" / name, 400)
    report = prepare(Experiment(data=data), copy.parent, progress=False, verify=True)
    assert [(c.made, c.kept) for c in report.collections] == [(1, 1), (0, 1)]
    assert {path.name: path.read_bytes() for path in (copy / "a/c9").iterdir()} == whole
    assert name == "case.json" or "it is made again" in capsys.readouterr().err
    again = prepare(Experiment(data=data), copy.parent, progress=False, verify=True)
    assert sum(c.made for c in again.collections) == 0


def test_case_names_as_people_have_them(tmp_path: Path) -> None:
    """They keep their name everywhere but in paths."""
    names = ["Anna (2)", "a/../../b", "..", ".hidden", "50%", "-x", "\N{LATIN SMALL LETTER E WITH ACUTE}", "50%25"]
    rows = ["case,image,label"]
    for number, name in enumerate(names):
        image, label = write_case(tmp_path / "raw/a", f"{number}", *scan((30, 26, 22), number, values=(1, 3)))
        rows.append(f"{name},{image},{label}")
    (tmp_path / "raw/a/table.csv").write_text("\n".join(rows), encoding="utf-8")
    own = {"a": Collection(root="a", table="table.csv", names=NAMES)}
    data = settings(tmp_path / "raw", finetune=(), collections=own)
    before = set((tmp_path / "raw").rglob("*"))
    prepare(Experiment(data=data), tmp_path / "out", progress=False)
    cases = Store(data.store_dir(tmp_path / "out")).cases("a")
    assert [case.id for case in cases] == names
    assert [unquote(case.path.name) for case in cases] == names
    assert all(re.fullmatch(r"[A-Za-z0-9_%][A-Za-z0-9._%-]*", case.path.name) for case in cases)
    assert set((tmp_path / "raw").rglob("*")) == before
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "out"}
    assert prepare(Experiment(data=data), tmp_path / "out", progress=False).collections[0].kept == len(names)


def test_missing_and_damaged_records(copy: Path) -> None:
    (copy / "a/c9/image.npy").unlink()
    with pytest.raises(InputError, match=r"image\.npy: is missing"):
        Store(copy).cases("a")
    (copy / "a/c9/case.json").write_text('{"schema": 1')
    with pytest.raises(InputError, match=r"case\.json: cannot be read"):
        Store(copy).cases("a")
    (copy / "a/c9/case.json").unlink()
    with pytest.raises(InputError, match=r"case\.json: is missing"):
        Store(copy).cases("a")
    for text in ("{}", "\0" * 500):
        (copy / "a/index.json").write_text(text)
        with pytest.raises(InputError, match=r"index\.json: cannot be read"):
            Store(copy).cases("a")
    (copy / "a/index.json").write_text("[]")
    with pytest.raises(InputError, match=r"index\.json: cannot be read \(holds a list, not an object\)"):
        Store(copy).cases("a")


def test_store_of_another_version(copy: Path) -> None:
    path = copy / "a/index.json"
    write_sealed(path, {**read_sealed(path), "schema": 0})
    with pytest.raises(InputError, match="another version of mixcl; run mixcl prepare"):
        Store(copy).cases("a")


def test_other_folders_are_not_looked_at(copy: Path) -> None:
    (copy / "a/.tmp-c1").mkdir()
    (copy / "a/gone").mkdir()
    (copy / "a/gone/case.json").write_text("{}")
    assert [case.id for case in Store(copy).cases("a")] == ["c9", "c10"]

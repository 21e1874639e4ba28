"""Settings: the paper's values, overrides, and one clear sentence for every kind of mistake."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from mixcl.config import load_profile, overlaid, with_settings
from mixcl.config.settings import Collection
from mixcl.errors import InputError
from mixcl.labels import UNKNOWN
from mixcl.run.record import flat, provenance

ROOT = Path(__file__).resolve().parents[2]


def test_paper_profile_is_literal() -> None:
    """The numbers of Sec. 2 and 3.1, typed here from the paper."""
    c = load_profile("paper")
    assert (c.loss.alpha, c.loss.beta, c.loss.temperature) == (0.01, 0.01, 0.1)
    assert (c.sampler.mu, c.sampler.eps, c.sampler.aux_same_image_prob) == (8.0, 0.05, 0.5)
    assert c.model.patch == 96
    assert c.data.spacing == (1.5, 1.5, 2.0)
    assert c.data.hu == (-150.0, 250.0)
    assert (c.pretrain.epochs, c.pretrain.batch, c.pretrain.lr, c.pretrain.weight_decay) == (1000, 6, 1e-4, 1e-5)
    assert (c.finetune.epochs, c.finetune.batch, c.finetune.lr) == (2000, 2, 1e-4)
    assert (c.views.spatial_prob, c.views.intensity_prob, c.finetune_augment.prob) == (0.5, 0.2, 0.2)
    assert c.grid.percents == {"msd_spleen": (5, 15, 50, 100), "btcv": (15, 50, 100)}
    assert c.grid.n_folds == 5
    assert sum(c.data.phantom.counts[name] for name in c.data.pretrain) == 765


def test_the_other_reading_of_iterations_has_a_profile() -> None:
    """R15: the same but for steps in the place of epochs, and for what is logged and kept on the way."""
    paper, other = load_profile("paper"), load_profile("paper-steps")
    assert (other.pretrain.steps, other.finetune.steps) == (1000, 2000)
    assert (other.pretrain.epochs, other.finetune.epochs) == (None, None)
    differ = {key for key in flat(paper.model_dump()) if flat(paper.model_dump())[key] != flat(other.model_dump())[key]}
    ways = ("steps", "epochs", "log_every", "gradients_every", "checkpoint_every")
    assert differ - {"profile"} <= {f"{section}.{key}" for section in ("pretrain", "finetune") for key in ways}
    assert load_profile("paper-balanced").finetune.epochs == 2000


def test_literal_readings_are_the_defaults() -> None:
    c = load_profile("paper").loss
    assert (c.center, c.level_weights, c.label_reduction) == (False, None, "ratio")
    assert (c.background, c.recon_reduction, c.sync_correlation) == ("ignore_pairs", "sum", True)


@pytest.mark.parametrize(
    "name",
    [
        "smoke", "phantom", "paper", "paper-steps", "paper-balanced", "fair", "map", "points", "handover", "stopped",
        "replication", "fair-size", "map-size", "points-size", "walkthrough", "walkthrough-fine", "walkthrough-train",
    ],
)  # fmt: skip
def test_profiles_load_and_name_themselves(name: str) -> None:
    assert load_profile(name).profile == name


def test_a_variant_is_the_profile_with_its_settings() -> None:
    config = load_profile("map")
    for settings in config.grid.variants.values():
        assert with_settings(config, settings) == load_profile("map", settings)


def test_a_wrong_variant_is_named() -> None:
    with pytest.raises(InputError, match=r"^profile 'smoke', variant 'odd': unknown key 'loss.alpa' \(did you mean"):
        load_profile("smoke", ["grid.variants={odd: [loss.alpa=1]}"])
    with pytest.raises(InputError, match=r"^profile 'smoke': 'loss.alpha'"):
        with_settings(load_profile("smoke"), ["loss.alpha=-1"])


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load_profile("smoke").loss.alpha = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("loss.alpha=1e-3", lambda c: c.loss.alpha, 1e-3),
        ("loss.level_weights=[1, 0.5, 0, 0, 0]", lambda c: c.loss.level_weights, (1, 0.5, 0, 0, 0)),
        ("data.root=/a b/c", lambda c: c.data.root, "/a b/c"),
        ("data.phantom.counts.btcv=7", lambda c: c.data.phantom.counts["btcv"], 7),
        ("grid.percents={btcv: [15]}", lambda c: c.grid.percents["btcv"], (15,)),
    ],
)
def test_overrides(override: str, read, value) -> None:  # type: ignore[no-untyped-def]
    assert read(load_profile("smoke", [override])) == value


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("loss.alhpa=1", ["loss.alhpa", "did you mean 'alpha'"]),
        ("los.alpha=1", ["did you mean 'loss'"]),
        ("pretrain.steps=many", ["pretrain.steps", "integer", "'many'"]),
        ("pretrain.steps=0", ["pretrain.steps", "greater than or equal to 1"]),
        ("loss.alpha=.nan", ["loss.alpha", "finite"]),
        ("loss.alpha=-1", ["loss.alpha", "greater than or equal to 0"]),
        ("loss=3", ["'loss'", "section"]),
        ("loss.background=none", ["loss.background", "ignore_pairs"]),
        ("model.patch=40", ["model.patch", "multiple of 16"]),
        ("model.heads=5", ["multiple of heads"]),
        ("data.hu=[250, -150]", ["not below"]),
        ("data.hu=[-1024, 57000]", ["data.hu.1", "less than 32768"]),
        ("data.pretrain=[kits19, kits19]", ["pretrain lists kits19 twice"]),
        ("data.pretrain=kits19", ["should be a list"]),
        ("pretrain.steps=010", ["base 8"]),
        ("grid.folds=[0, 0]", ["folds lists 0 twice"]),
        ("grid.seeds=[1, 1]", ["seeds lists 1 twice"]),
        ("grid.percents={btcv: [15, 15]}", ["btcv lists 15.0 twice"]),
        ("grid.percents={bctv: [100]}", ["shares of 'bctv'", "data.finetune has msd_spleen, btcv"]),
        ("grid.folds=[9]", ["folds are numbered 0 to 4", "n_folds is 5"]),
        ("data.collections.mine={nams: {1: liver}}", ["nams", "did you mean 'names'"]),
        ("data.collections.mine={image: a.nii.gz, names: {1: liver}}", ["{case}"]),
        ("data.collections.mine={names: {0: background}}", ["1 to 255"]),
        ("data.collections.mine={names: {1: liver, 2: liver}}", ["'liver' is there twice", "merge: {liver: [1, 2]}"]),
        ("data.collections.mine={names: {1: a, 2: b}, merge: {b: [1]}}", ["'b' is there twice"]),
        ("data.collections.mine={names: {1: Liver, 2: liver}}", ["'Liver' and 'liver' is there twice", "[1, 2]}"]),
        (
            "data.collections.mine={names: {1: a, 2: b}, merge: {c: [1, 2], d: [2]}}",
            ["merge has 2 twice", "'c'", "'d'"],
        ),
        ("data.collections.mine={names: {1: a, 2: b}, merge: {c: [1, 1]}}", ["merge has 1 twice"]),
        (
            "data.collections.mine={names: {1: a}, merge: {c: [1, 3]}}",
            ["merge joins 3 to 'c'", "names does not have 3"],
        ),
        ("data.collections.mine={names: {1: a}, merge: {c: [0, 1]}}", ["merge joins 0 to 'c'", "background"]),
        ("data.collections.mine={names: {1: a}, merge: {c: []}}", ["merge joins nothing to 'c'"]),
        ("data.collections.mine={names: {1: a}, unknown: [0]}", ["unknown has 0", "background"]),
        ("data.collections.mine={names: {1: a}, unknown: [9999999999]}", ["unknown has 9999999999"]),
        ("data.collections.mine={names: {1: a}, unknown: [1]}", ["unknown and names both have 1 (a)"]),
        ("data.collections.mine={names: {1: a}, unknown: [9, true]}", ["unknown"]),
        ("data.collections.mine={names: {true: a}}", ["names takes numbers, not true or false", "in quotes"]),
        ("data.collections.mine={names: {1: no}}", ["names takes numbers, not true or false", "in quotes"]),
        ("data.collections.mine={names: {1: ''}}", ["an organ ''"]),
        ("data.collections.mine={names: {1: 'a '}}", ["an organ 'a '"]),
        ('data.collections.mine={names: {1: "a\\nb"}}', ["line breaks"]),
        ("data.collections={../mine: {names: {1: liver}}}", ["collection '../mine'", "names a folder"]),
        ("data.finetune=[a/b]", ["collection 'a/b'", "names a folder"]),
        ("grid.percents={../x: [100]}", ["task '../x'", "names a folder"]),
        ("grid.variants={../x: [loss.alpha=0]}", ["arm '../x'"]),
        (f"grid.variants={{{'x' * 121}: [loss.alpha=0]}}", ["at most 120 characters"]),
        ("grid.variants={s1: [loss.alpha=0]}", ["variant 's1'", "as a seed ends a job's name"]),
        ("grid.variants={id-s2: [loss.alpha=0]}", ["variant 'id-s2'", "as a seed ends a job's name"]),
        ("profile=../x", ["profile '../x'", "names a folder"]),
        ("data.phantom.counts={btvc: 7}", ["btvc has no phantoms", "btcv"]),
        ("loss.level_weights=[1, 2]", ["loss.level_weights has 2 numbers", "give 5"]),
        ("alpha", ["section.key=value"]),
        ("loss.alpha=[1", ["not readable as YAML"]),
    ],
)
def test_mistakes_get_one_sentence(override: str, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        load_profile("smoke", [override])
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("profile", "overrides", "folds"),
    [
        ("paper", ["grid.n_folds=3"], (0, 1, 2)),
        ("smoke", [], (0, 1)),
        ("smoke", ["grid.n_folds=3"], (0, 1, 2)),  # its own two of five are no longer meant
        ("smoke", ["grid.n_folds=2", "grid.folds=[1]"], (1,)),
        ("smoke", ["grid.folds=[1, 4]"], (1, 4)),
    ],
)
def test_the_folds_follow_from_their_number(profile: str, overrides: list[str], folds: tuple[int, ...]) -> None:
    config = load_profile(profile, overrides)
    assert config.grid.folds == folds
    assert with_settings(config, ["loss.alpha=0"]).grid.folds == folds


def test_merged_labels_are_one_organ_of_the_collection() -> None:
    names = {1: "liver", 2: "right kidney", 3: "left kidney", 7: "liver tumour", 8: "spleen", 255: "aorta"}
    own = Collection(names=names, merge={"kidney": (3, 2), "liver": (7, 1)}, unknown=(9, 254))
    assert own.organs == {1: "liver", 2: "kidney", 8: "spleen", 254: "aorta"}
    assert own.stored == {1: 1, 2: 2, 3: 2, 7: 1, 8: 8, 255: 254, 9: UNKNOWN, 254: UNKNOWN}
    with pytest.raises(ValidationError, match="254 is the most"):
        Collection(names={value: str(value) for value in range(1, 256)})
    most = Collection(names={value: str(value) for value in range(2, 256)})
    assert sorted(most.organs) == list(range(1, 255))


LENGTH = {  # of a training, as profile "mine" and --set give it, and the (steps, epochs) that come of it
    "a default": ("", [], (None, 1000)),
    "a profile": ("pretrain: {steps: 9}", [], (9, None)),
    "a profile that extends steps": ("extends: smoke\npretrain: {epochs: 2}", [], (None, 2)),
    "a profile that extends epochs": ("extends: paper\npretrain: {steps: 9}", [], (9, None)),
    "a setting over a default": ("", ["pretrain.steps=9"], (9, None)),
    "a setting over a profile": ("pretrain: {steps: 9}", ["pretrain.epochs=2"], (None, 2)),
    "a whole section": ("pretrain: {steps: 9}", ["pretrain={epochs: 2}"], (None, 2)),
    "the same twice": ("", ["pretrain.steps=9", "pretrain.steps=8"], (8, None)),
    "another setting": ("extends: smoke\npretrain: {lr: 1}", [], (4, None)),
    "null beside the other": ("extends: smoke\npretrain: {epochs: 2, steps: null}", [], (None, 2)),
    "an emptied section": ("extends: smoke\npretrain: {}", [], (None, 1000)),
}


@pytest.mark.parametrize("case", LENGTH)
@pytest.mark.parametrize("section", ["pretrain", "finetune"])
def test_who_gives_steps_or_epochs_replaces_what_is_inherited(tmp_path: Path, case: str, section: str) -> None:
    text, overrides, length = LENGTH[case]
    mine = tmp_path / "mine.yaml"
    mine.write_text(text.replace("pretrain", section))
    settings = getattr(load_profile(mine, [item.replace("pretrain", section) for item in overrides]), section)
    defaults = {"pretrain": 1000, "finetune": 2000}
    assert (settings.steps, settings.epochs) == (length if length[1] != 1000 else (None, defaults[section]))


@pytest.mark.parametrize("section", ["pretrain", "finetune"])
def test_steps_and_epochs_by_one_author_are_a_mistake(tmp_path: Path, section: str) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"extends: smoke\n{section}: {{steps: 9, epochs: 2}}\n")
    both = rf"'{section}': .*steps or its epochs.* both are, 9 and 2; give one"
    with pytest.raises(InputError, match=both):
        load_profile(mine)
    for overrides in (
        [f"{section}.steps=9", f"{section}.epochs=2"],
        [f"{section}.epochs=2", f"{section}={{steps: 9}}"],
    ):
        with pytest.raises(InputError, match=both):
            load_profile("smoke", overrides)
    with pytest.raises(InputError, match=rf"variant 'odd': {both}"):
        load_profile("smoke", [f"grid.variants={{odd: [{section}.epochs=2, {section}.steps=9]}}"])


@pytest.mark.parametrize("section", ["pretrain", "finetune"])
@pytest.mark.parametrize("profile", ["smoke", "paper"])
def test_neither_steps_nor_epochs_is_a_mistake(profile: str, section: str) -> None:
    inherited = "steps" if profile == "smoke" else "epochs"
    with pytest.raises(InputError, match=rf"'{section}': .* neither is given; give one"):
        load_profile(profile, [f"{section}.{inherited}=null"])


def test_an_epoch_takes_each_scan_once() -> None:
    """R15, by hand: 765 scans at 6 a step are 127.5 steps; 15, 50 and 100 % of BTCV's 24 are 4, 12 and 24 scans."""
    paper, smoke = load_profile("paper"), load_profile("smoke")
    assert paper.pretrain.total_steps(765) == 1000 * 128
    assert [paper.finetune.total_steps(scans) for scans in (4, 12, 24, 1)] == [4000, 12000, 24000, 2000]
    assert {smoke.finetune.total_steps(scans) for scans in (1, 4, 24)} == {4}


def test_the_order_of_the_collections_of_a_pretraining_is_none() -> None:
    """Their scans are drawn by place, so one order is taken whatever is written."""
    one, other = (
        load_profile("smoke", [f"data.pretrain=[{names}]"]) for names in ("kits19, msd_liver", "msd_liver, kits19")
    )
    assert one.data.pretrain == other.data.pretrain == ("msd_liver", "kits19")


def test_overrides_of_two_authors_make_one_list() -> None:
    """A variant's steps over a user's epochs; what they give alike or apart stays as it is."""
    arm = ["pretrain.steps=7", "finetune.lr=0.1"]
    one = overlaid(["pretrain.epochs=3", "finetune.epochs=5"], arm)
    config = load_profile("smoke", one)
    assert (config.pretrain.steps, config.pretrain.epochs) == (7, None)
    assert (config.finetune.epochs, config.finetune.lr) == (5, 0.1)
    assert config == with_settings(load_profile("smoke", ["pretrain.epochs=3", "finetune.epochs=5"]), arm)


def test_settings_of_the_ceiling_are_settings() -> None:
    text = (ROOT / "reproduce/bench/ceiling.sh").read_text()
    words = shlex.split(text[text.index("other=(") : text.index("mixcl prepare")].replace(")", " "))
    config = load_profile("fair", [value for word, value in itertools.pairwise(words) if word == "--set"])
    assert config.data.pretrain == config.data.finetune == ("btcv",)
    assert config.finetune.steps == 3000


def test_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'phantom'"):
        load_profile("phantm")
    with pytest.raises(InputError, match="no such profile file"):
        load_profile("nowhere/mine.yaml")


def test_a_profile_of_ones_own_extends_another(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: smoke\nloss: {alpha: 0.5}\n")
    config, base = load_profile(path), load_profile("smoke")
    assert config.profile == "mine"
    assert config.loss.alpha == 0.5
    assert config.model == base.model


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not readable as YAML"),
        ("- 1\n", "mapping"),
        ("extends: mine\n", "extends itself"),
        ("x: 1\n", "unknown key 'x'"),
    ],
)
def test_broken_profiles(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        load_profile(path)


def test_a_dumped_config_loads_as_itself(tmp_path: Path) -> None:
    config = load_profile("phantom", ["loss.level_weights=inverse_channels"])
    path = tmp_path / "again.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert load_profile(path) == config


def test_provenance_says_where_a_result_comes_from() -> None:
    card = provenance(load_profile("smoke"), seed=3)
    assert card["seed"] == 3
    assert card["versions"]["torch"].startswith("2.")
    assert len(card["commit"]) >= 7


def test_precision_no_needs_no_quotes() -> None:
    assert load_profile("paper", ["run.precision=no"]).run.precision == "no"


@pytest.mark.parametrize("allow", [False, True])
def test_pretraining_on_what_is_tested_has_to_be_allowed(allow: bool) -> None:
    given = ["data.pretrain=[msd_liver, btcv]", f"data.pretrain_sees_test={'true' if allow else 'false'}"]
    if allow:
        assert load_profile("paper", given).data.pretrain == ("msd_liver", "btcv")
        return
    with pytest.raises(
        InputError, match=r"pretrain and finetune both name btcv, .* data.pretrain_sees_test=true"
    ) as error:
        load_profile("paper", given)
    assert "\n" not in str(error.value)

"""The plan: every cell of both tables once, and what each job needs."""

import pytest

from mixcl.config import load_profile
from mixcl.errors import InputError
from mixcl.run.jobs import finetunings, kernels, pretrainings


def test_the_paper_needs_110_fine_tunings_and_4_pretrainings():
    config = load_profile("paper")
    # Table 1: 7 cells x 2 arms x 5 folds. Table 2: 5 arms for Spleen 30 %, 3 more for BTCV 100 %, x 5 folds.
    assert len(finetunings(config)) == 70 + 25 + 15
    assert [job.name for job in pretrainings(config)] == [
        "pretrain", "pretrain-id", "pretrain-id-label", "pretrain-id-recon",
    ]  # fmt: skip


def test_names_are_unique_and_needs_are_planned():
    config = load_profile("paper", ["grid.seeds=[0,1]"])
    jobs = finetunings(config)
    assert len({job.name for job in jobs}) == len(jobs)
    made = {job.name for job in pretrainings(config)}
    assert {job.needs for job in jobs} == made | {None}


def test_kernels_hold_one_cell_each_and_lose_nothing():
    jobs = finetunings(load_profile("paper"))
    for most in (1, 2, 5, 100):
        groups = kernels(load_profile("paper", [f"run.folds_a_kernel={most}"]))
        assert [job for group in groups.values() for job in group] == jobs
        for group in groups.values():
            assert len(group) <= most
            assert len({(j.parameters["TASK"], j.parameters["PERCENT"], j.parameters["ARM"]) for j in group}) == 1
    assert len(kernels(load_profile("paper", ["run.folds_a_kernel=5"]))) == 22


def test_without_ablation_only_table_1_is_planned():
    config = load_profile("paper")
    grid = config.grid.model_copy(update={"ablation": {}})
    config = config.model_copy(update={"grid": grid})
    assert len(finetunings(config)) == 70
    assert [job.name for job in pretrainings(config)] == ["pretrain"]


@pytest.mark.parametrize(
    ("variants", "names"),
    [
        ("{mixcl: []}", "mixcl"),
        ("{A B: []}", "A B"),
        ("{x: [data.hu=1]}", "data.hu"),
        ("{x: [loss.alpa=1]}", "alpha"),
        ("{x: [loss.alpha=-1]}", "variant 'x'"),
    ],
)
def test_a_wrong_variant_is_refused(variants, names):
    with pytest.raises(InputError, match=names):
        load_profile("smoke", [f"grid.variants={variants}"])


def test_a_variants_own_seed_is_the_first_of_its_pretrainings() -> None:
    config = load_profile("smoke", ["grid.variants={other: [pretrain.seed=100]}", "grid.seeds=[0, 1]"])
    made = {job.name: dict(item.split("=") for item in job.settings) for job in pretrainings(config)}
    assert {made[name].get("pretrain.seed") for name in ("pretrain-other", "pretrain-s1")} == {"100", "1"}
    assert made["pretrain-other-s1"]["pretrain.seed"] == "101"

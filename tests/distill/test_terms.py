"""The grammar of ``--loss`` and the weights of the papers."""

from __future__ import annotations

import pytest

from edgexfer.core.errors import RecipeError
from edgexfer.distill.losses import LOSSES
from edgexfer.distill.terms import (
    FACTS,
    Term,
    hard_weight,
    parse_loss,
    split_losses,
    unmixable,
)


def test_a_name_alone_has_the_weights_of_its_paper() -> None:
    assert parse_loss("kd", w_soft=None) == (Term("kd", 0.9),)
    assert parse_loss("hint", w_soft=None) == (Term("hint", 100.0),)
    weights = {t.name: t.weight for t in parse_loss("+".join(FACTS), w_soft=None)}
    assert weights["dkd"] == 1 and weights["nckd"] == 8 and weights["dist"] == 2
    assert weights["attention"] == 1000 and weights["similarity"] == 3000
    assert weights["relational"] == weights["review"] == 1


def test_a_sum_with_weights_and_layers() -> None:
    terms = parse_loss(" 0.5*kd + 2e3 * attention @ -1 + hint@layer2.0:stages.1", w_soft=None)
    assert terms == (
        Term("kd", 0.5),
        Term("attention", 2000.0, "-1", "-1"),
        Term("hint", 100.0, "layer2.0", "stages.1"),
    )
    assert [t.label for t in terms] == ["kd", "attention@-1:-1", "hint@layer2.0:stages.1"]


def test_the_soft_weight_is_that_of_logit_losses_without_one_of_their_own() -> None:
    terms = parse_loss("kd+3*dist+hint", w_soft=0.25)
    assert [t.weight for t in terms] == [0.25, 3.0, 100.0]
    assert parse_loss("kd", w_soft=0.0)[0].weight == 0


@pytest.mark.parametrize(
    ("text", "weight"),
    [("kd", 0.1), ("mse", 0.1), ("hard", 0.5), ("dkd", 1.0), ("dist", 1.0), ("hint", 1.0)],
)
def test_the_labels_have_the_weight_of_the_paper(text: str, weight: float) -> None:
    terms = parse_loss(text, w_soft=None)
    assert hard_weight(terms, None) == weight
    assert hard_weight(terms, 0.0) == 0


def test_a_feature_loss_beside_kd_leaves_the_balance_of_kd() -> None:
    assert hard_weight(parse_loss("hint@2+kd", w_soft=None), None) == 0.1
    assert hard_weight(parse_loss("dist+review", w_soft=None), None) == 1


def test_losses_that_need_one_true_class_are_told() -> None:
    assert unmixable(parse_loss("kd+dkd+nckd+relational", w_soft=None)) == ("dkd", "nckd")
    assert unmixable(parse_loss("kd+dist+similarity", w_soft=None)) == ()


def test_every_logit_loss_has_facts() -> None:
    assert [n for n, facts in FACTS.items() if not facts.features] == list(LOSSES)


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("kdd", "loss 'kdd' is unknown", "did you mean 'kd'"),
        ("kd+hnit@2", "loss 'hnit' is unknown", "did you mean 'hint'"),
        ("", "loss '': a term is empty", "kd+hint@2"),
        ("kd+", "loss 'kd+': a term is empty", "kd+hint@2"),
        ("-1*kd", "loss '-1*kd': '-1' is not a weight", "a number of 0 or more"),
        ("nan*kd", "loss 'nan*kd': 'nan' is not a weight", "a number of 0 or more"),
        ("inf*kd", "loss 'inf*kd': 'inf' is not a weight", "a number of 0 or more"),
        ("*kd", "loss '*kd': '' is not a weight", "a number of 0 or more"),
        ("2*3*kd", "loss '2*3*kd': '2*3' is not a weight", "a number of 0 or more"),
        ("kd@2", "loss 'kd@2': kd compares logits and takes no layers", "leave out @2"),
        ("hint@", "loss 'hint@': '' does not name the layers", "hint@2:3"),
        ("hint@2:", "loss 'hint@2:': '2:' does not name the layers", "hint@2:3"),
        ("hint@1:2:3", "loss 'hint@1:2:3': '1:2:3' does not name the layers", "hint@2:3"),
        ("kd+2*kd", "loss 'kd+2*kd': kd stands in it 2 times", "the sum of its weights"),
        ("hint@2+hint@2:2", "hint@2:2 stands in it 2 times", "the sum of its weights"),
    ],
)
def test_what_is_wrong_is_named_with_its_mend(text: str, what: str, fix: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_loss(text, w_soft=None)
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_a_feature_loss_may_stand_twice_with_other_layers() -> None:
    assert len(parse_loss("hint@1+hint@2+hint@2:3", w_soft=None)) == 3


def test_sums_to_compare() -> None:
    assert split_losses("kd, dkd,dist+hint@2") == ("kd", "dkd", "dist+hint@2")
    with pytest.raises(RecipeError, match="nothing stands beside one of its commas") as caught:
        split_losses("kd,,dkd")
    assert "kd,dkd,dist" in caught.value.fix
    with pytest.raises(RecipeError, match="kd is to be compared with itself") as caught:
        split_losses("kd,dkd,kd")
    assert "--seeds" in caught.value.fix

"""What experiments may be selected on."""

import pytest

from meadow.errors import MeadowError
from meadow.experiments.objective import Objective


@pytest.mark.parametrize("name", ["accuracy", "log_loss", "brier", "ece", "auroc"])
@pytest.mark.parametrize("method", ["probe", "finetune"])
def test_no_test_figure_is_selected_on(name: str, method: str) -> None:
    """The best of 50 on the test photos would look better than it is."""
    with pytest.raises(MeadowError, match="test photos"):
        Objective.of(name, {method})


def test_the_usual_metric_is_the_log_loss_of_the_method() -> None:
    """And figures of two methods are not compared."""
    assert Objective.of(None, {"probe"}).name == "cv_log_loss"
    assert Objective.of(None, {"finetune"}).name == "val.log_loss"
    assert Objective.of("cv_accuracy", {"probe"}).direction == "maximize"
    with pytest.raises(MeadowError, match="another method"):
        Objective.of("cv_log_loss", {"finetune"})
    with pytest.raises(MeadowError, match="at a time"):
        Objective.of(None, {"probe", "finetune"})

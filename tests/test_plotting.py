"""Plots hold the data they were given, with labels; without matplotlib they name the extra."""

import sys

import numpy as np
import pytest

import fastincentive as fi
from fastincentive.errors import InputError, MissingExtraError
from fastincentive.models.grid import Grid
from fastincentive.solution import History

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from fastincentive import plotting  # noqa: E402

MAP = """
S.#.L
.F..G
S...L
"""


@pytest.fixture
def ax():
    return Figure(layout="constrained").subplots()


def draw(ax):
    """Render, so that whatever is wrong only then is seen; a bare Figure's own canvas does not."""
    FigureCanvasAgg(ax.figure).draw()


def texts(ax):
    return [text.get_text() for text in ax.texts]


def history(payments, feasibility=None):
    """Return a run of as many iterations as there are rows of payments."""
    payments = np.atleast_2d(np.asarray(payments, float))
    nit = len(payments)
    record = History()
    record.payments = list(payments)
    record.leader_value = list(np.linspace(1.0, 2.0, nit))
    record.objective = list(np.linspace(0.5, 1.0, nit))
    record.feasibility = list(np.zeros(nit) if feasibility is None else feasibility)
    record.largest_gap = record.multiplier = record.residual = [0.0] * nit
    return record


# Grids


def test_grid_of_the_paper(ax):
    problem = fi.models.paper_gridworld()
    assert plotting.plot_grid(problem, ax) is ax
    draw(ax)
    found = texts(ax)
    assert found.count("fire −5") == 5
    assert found.count("goal +10") == 2
    assert found.count("start") == 1
    at = {text.get_text(): text.get_position() for text in ax.texts}
    assert at["lesser\ngoal +8\npay 0"] == (5, 4)  # column, row
    assert at["lesser\ngoal +8\npay 1"] == (4, 1)
    assert at["start"] == (0, 2)
    assert len(ax.patches) == 36
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("column", "row")
    low, high = ax.get_ylim()
    assert low > high  # row 0 is at the top


def test_grid_names_payments_and_starts(ax):
    problem = fi.models.gridworld(MAP, slip=(0.1, 0.2))
    plotting.plot_grid(problem, ax, payment_labels=["a", "b", "c", "d"])
    assert "lesser\ngoal +8\n+ a, c" in texts(ax)
    assert {"start of\n0", "start of\n1"} <= set(texts(ax))
    walls = [patch for patch in ax.patches if patch.get_hatch()]
    assert [(wall.get_x(), wall.get_y()) for wall in walls] == [(1.5, -0.5)]
    with pytest.raises(InputError, match="payment_labels: expected 4 names, got 1"):
        plotting.plot_grid(problem, ax, payment_labels=["a"])


def test_bare_grid_has_no_rewards(ax):
    plotting.plot_grid(Grid.parse(MAP), ax)
    assert sorted(texts(ax)) == sorted(
        ["start of\n0", "start of\n1", "fire", "goal", "lesser\ngoal", "lesser\ngoal"]
    )


def test_rewards_that_differ_between_followers_are_not_shown(ax):
    mdp = fi.models.grid_mdp(MAP)
    problem = fi.IncentiveProblem(
        [mdp, mdp.replace(reward=2.0 * mdp.reward)],
        fi.LabelReward(np.zeros(16, int), np.zeros((1, 1))),
        fi.Payments.at_states([[4], []]),
    )
    problem.grid = Grid.parse(MAP)
    plotting.plot_grid(problem, ax)
    assert "fire" in texts(ax)


def test_large_grid_has_letters_and_a_legend(ax):
    rows = [".F" * 15, "G." * 15, "S" + "." * 28 + "L"]
    plotting.plot_grid(fi.models.gridworld(" ".join(rows)), ax)
    draw(ax)
    assert set(texts(ax)) == {"F", "G", "S", "L"}
    names = {text.get_text() for text in ax.get_legend().get_texts()}
    assert names == {"fire", "goal", "lesser goal", "start"}


def test_occupancy(ax):
    problem = fi.models.gridworld(MAP)
    visits = np.arange(16, dtype=float)
    assert plotting.plot_occupancy(problem, visits, ax) is ax
    draw(ax)
    shown = ax.collections[0].get_array()
    assert shown.shape == (3, 5)
    assert bool(shown.mask[0, 2])  # the wall
    assert shown.mask.sum() == 1
    np.testing.assert_array_equal(shown.compressed(), np.delete(visits[:15], 2))
    assert ax.collections[0].get_clim() == (0.0, 14.0)  # the Sink's 15 is left out
    assert {"14.00", "S", "F", "G", "L"} <= set(texts(ax))
    assert "0.00" not in texts(ax)
    labels = [other.get_ylabel() for other in ax.figure.axes]
    assert "expected discounted visits" in labels


def test_occupancy_of_a_best_response(ax):
    problem = fi.models.paper_gridworld()
    mdp = problem.followers[0]
    visits = fi.occupancy_measure(mdp, fi.best_response(mdp).policy).sum(axis=1)
    before = visits.copy()
    plotting.plot_occupancy(problem, visits, ax, maximum=3.0)
    np.testing.assert_array_equal(visits, before)
    assert ax.collections[0].get_clim() == (0.0, 3.0)
    assert f"{visits[12]:.2f}" in texts(ax)


def test_occupancy_of_nothing(ax):
    plotting.plot_occupancy(fi.models.gridworld(MAP), np.zeros(16), ax)
    draw(ax)
    assert ax.collections[0].get_clim() == (0.0, 1.0)


def test_grid_plots_want_a_grid(ax):
    with pytest.raises(InputError, match=r"problem: expected a Grid.*IncentiveProblem"):
        plotting.plot_grid(fi.models.example1(), ax)
    with pytest.raises(InputError, match=r"occupancy: expected shape \(16,\)"):
        plotting.plot_occupancy(fi.models.gridworld(MAP), np.zeros((4, 4)), ax)


# The course of a run


def test_payments(ax):
    record = history([[2.0, 1.0], [3.0, 0.5], [4.0, 0.0]])
    assert plotting.plot_payments(record, ax) is ax
    draw(ax)
    first, second = ax.lines
    np.testing.assert_array_equal(first.get_ydata(), [2.0, 3.0, 4.0])
    np.testing.assert_array_equal(second.get_ydata(), [1.0, 0.5, 0.0])
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["payment 0", "payment 1"]
    assert ax.get_ylabel() == "payment (units of reward)"
    assert ax.get_xlabel() == "iteration"
    low, high = ax.get_ylim()
    assert low < 0.0
    assert high > 4.0


def test_payments_with_names(ax):
    record = history([[2.0, 1.0]])  # one iteration: the marker shows it
    plotting.plot_payments(record, ax, labels=["x1", "x2"])
    assert [line.get_label() for line in ax.lines] == ["x1", "x2"]
    assert ax.lines[0].get_marker() == "o"
    with pytest.raises(InputError, match="labels: expected 2 names, one per payment, got 1"):
        plotting.plot_payments(record, ax, labels=["x1"])


def test_many_payments_have_no_legend(ax):
    plotting.plot_payments(history(np.zeros((4, 30))), ax)
    assert len(ax.lines) == 30
    assert ax.get_legend() is None
    assert ax.get_title() == "Payments, 30 in all"


def test_feasibility_shows_zeros(ax):
    record = history(np.ones((5, 1)), feasibility=[-10.0, -1e-3, 0.0, -1e-14, 0.0])
    assert plotting.plot_feasibility(record, ax) is ax
    draw(ax)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [10.0, 1e-3, 0.0, 1e-14, 0.0])
    assert ax.get_yscale() == "symlog"
    low, high = ax.get_ylim()
    assert low < 0.0
    assert high >= 10.0
    ticks = ax.get_yticks()
    assert 0.0 in ticks
    assert len(ticks) < 10


def test_feasibility_shows_both_signs(ax):
    record = history(np.ones((3, 1)), feasibility=[-1.0, 0.5, 1e-3])
    plotting.plot_feasibility(record, ax)
    draw(ax)
    low, high = ax.get_ylim()
    assert low <= -0.5
    assert high >= 1.0


def test_feasibility_of_a_feasible_run(ax):
    plotting.plot_feasibility(history(np.ones((3, 1))), ax)
    draw(ax)
    assert ax.get_ylim()[0] < 0.0 < ax.get_ylim()[1]


def test_objective(ax):
    record = history(np.ones((3, 1)))
    assert plotting.plot_objective(record, ax) is ax
    draw(ax)
    value, objective = ax.lines
    np.testing.assert_array_equal(value.get_ydata(), record.leader_value)
    np.testing.assert_array_equal(objective.get_ydata(), record.objective)
    assert len(ax.get_legend().get_texts()) == 2


@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
def test_solutions_are_taken_for_their_history(ax):
    problem = fi.models.example1()
    solution = fi.solve(problem, fi.BilevelAscent(max_iter=3), initial_policies="best-response")
    plotting.plot_payments(solution, ax)
    expected = solution.history.arrays()["payments"]
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), expected[:, 1])


@pytest.mark.parametrize(
    "plot", [plotting.plot_payments, plotting.plot_feasibility, plotting.plot_objective]
)
def test_history_is_checked(plot, ax):
    with pytest.raises(InputError, match="history: expected at least one iteration"):
        plot(History(), ax)
    with pytest.raises(InputError, match="history: expected a History or a Solution, got list"):
        plot([1.0, 2.0], ax)


# Contours


def test_contours(ax):
    x1, x2 = np.linspace(0.0, 3.0, 7), np.linspace(0.0, 4.0, 9)
    values = x1[None, :] - x2[:, None]
    points = [(0.0, 0.0), (3.0, 1.0), (1.0, 4.0)]
    assert plotting.plot_contours(x1, x2, values, points, ax) is ax
    draw(ax)
    assert texts(ax) == ["(0, 0)", "(3, 1)", "(1, 4)"]
    np.testing.assert_array_equal(np.transpose(ax.lines[0].get_data()), points)
    box = ax.get_window_extent()
    for text in ax.texts:  # labels stay inside the axes
        inside = text.get_window_extent()
        assert box.x0 <= inside.x0 <= inside.x1 <= box.x1
        assert box.y0 <= inside.y0 <= inside.y1 <= box.y1


def test_contours_without_points(ax):
    plotting.plot_contours(np.arange(3), np.arange(2), np.zeros((2, 3)), None, ax)
    draw(ax)
    assert texts(ax) == []


def test_contours_check_shapes(ax):
    with pytest.raises(InputError, match=r"values: expected shape \(2, 3\), got \(3, 2\)"):
        plotting.plot_contours(np.arange(3), np.arange(2), np.zeros((3, 2)), None, ax)
    with pytest.raises(InputError, match=r"points: expected an array \(m, 2\)"):
        plotting.plot_contours(np.arange(3), np.arange(2), np.zeros((2, 3)), [1, 2, 3], ax)


# Trade-offs


def front_of(costs, values, budgets=None, spends=None):
    m = len(costs)
    costs, values = np.array(costs, float), np.array(values, float)
    return fi.ParetoFront(
        weights=np.arange(m, dtype=float),
        budgets=budgets,
        payments=np.zeros((m, 1)),
        leader_values=values,
        costs=costs,
        objectives=values,
        nominal_spends=costs,
        expected_spends=costs if spends is None else np.array(spends, float),
        pessimistic_values=values,
    )


def test_pareto(ax):
    front = front_of([9.0, 4.0, 4.0, 5.0, 0.0], [3.0, 2.0, 2.0, 1.5, 0.0])
    assert plotting.plot_pareto(front, ax) is ax
    draw(ax)
    stairs, dots, others = ax.lines
    assert stairs.get_drawstyle() == "steps-post"
    np.testing.assert_array_equal(dots.get_xdata(), [0.0, 4.0, 4.0, 9.0])
    np.testing.assert_array_equal(dots.get_ydata(), [0.0, 2.0, 2.0, 3.0])
    np.testing.assert_array_equal(np.transpose(others.get_data()), [[5.0, 1.5]])
    # The lowest of the weights that lead to one point.
    assert set(texts(ax)) == {"w = 4", "w = 1", "w = 0"}
    box = ax.get_window_extent()
    for text in ax.texts:  # labels stay inside the axes
        inside = text.get_window_extent()
        assert box.x0 <= inside.x0 <= inside.x1 <= box.x1
        assert box.y0 <= inside.y0 <= inside.y1 <= box.y1
    assert [text.get_text() for text in ax.get_legend().get_texts()][-1] == "not efficient"


def test_pareto_over_budgets_with_expected_spend(ax):
    budgets = np.array([0.0, 1.0])
    front = front_of([0.0, 1.0], [1.0, 2.0], budgets, spends=[0.0, np.inf])
    plotting.plot_pareto(front, ax, expected_spend=True)
    draw(ax)
    assert set(texts(ax)) == {"budget = 0", "budget = 1"}
    assert ax.lines[-1].get_label() == "value against expected spend"
    assert "expected spend" in ax.get_xlabel()


def test_pareto_with_many_points_names_some(ax):
    plotting.plot_pareto(front_of(np.arange(50), np.sqrt(np.arange(50))), ax)
    draw(ax)
    boxes = [text.get_window_extent() for text in ax.texts]
    assert 3 <= len(boxes) <= 6
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])


def test_pareto_of_one_point(ax):
    plotting.plot_pareto(front_of([1.0], [2.0]), ax)
    draw(ax)
    assert texts(ax) == ["w = 0"]
    with pytest.raises(InputError, match="front: expected a ParetoFront, got list"):
        plotting.plot_pareto([1.0], ax)


# All of them


def every_plot():
    problem = fi.models.gridworld(MAP)
    record = history(np.ones((2, 1)))
    return {
        "grid": lambda: plotting.plot_grid(problem),
        "occupancy": lambda: plotting.plot_occupancy(problem, np.ones(16)),
        "payments": lambda: plotting.plot_payments(record),
        "feasibility": lambda: plotting.plot_feasibility(record),
        "objective": lambda: plotting.plot_objective(record),
        "contours": lambda: plotting.plot_contours([0, 1], [0, 1], np.eye(2)),
        "pareto": lambda: plotting.plot_pareto(front_of([0, 1], [0, 1])),
    }


@pytest.mark.parametrize("name", every_plot())
def test_new_axes_by_default(name):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    ax = every_plot()[name]()
    new = set(plt.get_fignums()) - set(before)
    assert len(new) == 1
    assert ax.figure is plt.figure(new.pop())
    assert ax.get_title()
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    plt.close(ax.figure)


@pytest.mark.parametrize("name", every_plot())
def test_without_matplotlib_the_extra_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fastincentive\[plot\]'"):
        every_plot()[name]()

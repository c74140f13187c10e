"""What is known of programs that read our folders: the table of docs/other-runtimes.md, the forms, the words."""

import math
import re
from pathlib import Path

import pytest
from benchmarks.runtime_models import FACTOR, ORIGINAL, ROPES, TO, build_model

from aptlab.errors import ConfigError
from aptlab.models.hf import describe_decoder, read_rope_rule
from aptlab.models.hf.readers import READERS, ROWS, describe_readers, find_reader, name_rules, write_form
from aptlab.models.hf.readers.base import KEPT, Reader, Verdict
from aptlab.models.hf.readers.forms import keep_phi3_fields
from aptlab.nn.positions.rope import YaRN
from aptlab.testing import make_tiny_decoder

PAGE = (Path(__file__).parents[3] / "docs" / "other-runtimes.md").read_text(encoding="utf-8")
HOW = (
    "continue one prompt longer than the original context with it and with aptlab generate temperature=0: "
    "the texts must begin alike"
)
FORMS = [reader.name for reader in READERS if reader.form is not None]


def config_of(row):
    return describe_decoder(build_model(row), context=ORIGINAL, eos=256).config


def read_table(name):
    """Outcomes by (reader, rule) as the page says them."""
    (block,) = re.findall(f"<!-- {name}: begin -->\n(.*?)\n<!-- {name}: end -->", PAGE, re.DOTALL)
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
    return {(reader, row[0]): row[i] for row in rows for i, reader in enumerate(head) if i}


@pytest.mark.parametrize(("table", "key"), [("default", "default"), ("own", "own")])
def test_the_page_and_the_declarations_say_the_same(table, key):
    cells = read_table(table)
    declared = {(reader.name, rule): verdict for reader in READERS for rule, verdict in getattr(reader, key).items()}
    assert {where for where, cell in cells.items() if cell != "not run"} == set(declared)
    wrong = {where: cells[where] for where in declared if not cells[where].startswith(declared[where].outcome)}
    assert wrong == {}
    notes = {where: verdict.note for where, verdict in declared.items() if verdict.outcome in ("partly", "dropped")}
    assert {where: cells[where] for where, note in notes.items() if f"({note})" not in cells[where]} == {}


def test_the_page_has_enough_readers_and_rules():
    cells = read_table("default")
    run = {where for where, cell in cells.items() if cell != "not run"}
    assert len({reader for reader, _ in run}) >= 6
    assert len({rule for _, rule in run}) >= 10
    for reader in READERS:
        for version in reader.versions:
            assert version.replace(" ", "==") in PAGE


@pytest.mark.parametrize("row", ROWS)
def test_a_model_of_each_row_is_known_by_it(row):
    assert set(ROPES) == set(ROWS)
    assert row in name_rules(config_of(row))
    if row == "standard":
        assert name_rules(config_of(row)) == ("standard",)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("row", ROWS)
def test_a_form_says_the_same_rule(row, name):
    """Read by our own importer, which knows today's and the older form."""
    config, form = config_of(row), find_reader(name).form
    try:
        written = form(config)
    except ConfigError:
        return
    assert ("rope_parameters" in written) != ("rope_scaling" in written)
    if row in ("per layer",):
        return  # the importer's own tests read its older form
    before, scaling = read_rope_rule(config), written.get("rope_scaling") or {}
    if name == "mlx" and "long_factor" in scaling:  # its original length is no whole number
        found = [written["rope_theta"] ** (-i / 8) / divisor for i, divisor in enumerate(scaling["long_factor"])]
        assert before.inv_freq(16) == pytest.approx(found, rel=1e-12)
        return
    assert read_rope_rule(written).regimes(16) == before.regimes(16)


def test_the_older_form_has_both_names_of_the_type():
    written = find_reader("transformers4").form(config_of("yarn"))
    assert written["rope_scaling"]["type"] == written["rope_scaling"]["rope_type"] == "yarn"
    assert written["rope_theta"] == 10_000.0
    assert written["torch_dtype"] == "float32"
    assert "dtype" not in written


def test_phi3_gets_its_three_fields():
    written = keep_phi3_fields(config_of("longrope"))
    assert set(written["rope_scaling"]) == {"type", "short_factor", "long_factor"}
    assert keep_phi3_fields(config_of("partial"))["partial_rotary_factor"] == 0.5
    assert keep_phi3_fields(config_of("partial"))["rope_scaling"] is None


def test_a_factor_that_phi3_does_not_compute_is_refused():
    config = config_of("longrope")
    config["rope_parameters"] = config["rope_parameters"] | {"attention_factor": 1.5}
    with pytest.raises(ConfigError, match=r"attention_factor=1\.5 cannot be said to this reader: it computes 1\.154"):
        keep_phi3_fields(config)


def test_a_scaling_of_sliding_layers_has_no_older_key():
    config = config_of("per layer")
    config["rope_parameters"] = dict(config["rope_parameters"])
    config["rope_parameters"]["sliding_attention"] = config["rope_parameters"]["full_attention"]
    with pytest.raises(ConfigError, match=r"sliding_attention\.rope_type=linear has no place in the older keys"):
        keep_phi3_fields(config)


def test_mlx_is_told_the_factor_and_the_ramp_in_words_that_it_reads():
    scaling = find_reader("mlx").form(config_of("yarn attention_factor"))["rope_scaling"]
    assert 0.1 * scaling["mscale"] * math.log(FACTOR) + 1 == pytest.approx(1.0)
    for row in ("yarn truncate", "divisors"):
        config = config_of(row)
        scaling = find_reader("mlx").form(config)["rope_scaling"]
        length, longest = scaling["original_max_position_embeddings"], config["max_position_embeddings"]
        factor = math.sqrt(1 + math.log(longest / length) / math.log(length))
        assert factor == pytest.approx(config["rope_parameters"]["attention_factor"], rel=1e-9)
        assert scaling["type"] == "longrope"


def test_a_factor_below_one_cannot_be_said_to_mlx():
    net = make_tiny_decoder(rope=YaRN(**TO, truncate=False, attention_factor=0.5))
    config = describe_decoder(net, context=ORIGINAL).config
    with pytest.raises(ConfigError, match=r"attention_factor=0\.5 below 1 cannot be said to mlx-lm"):
        find_reader("mlx").form(config)


def made(name, outcome, note="", own=KEPT, form=dict):
    return Reader(
        name=name, versions=("it 1.0",), default={"yarn": Verdict(outcome, note)}, own={"yarn": own}, form=form
    )


def test_an_export_names_who_keeps_and_who_drops_in_silence():
    readers = [made("a", "kept"), made("b", "dropped", "without scaling"), made("c", "refused", "why")]
    readers += [made("d", "partly", "default yarn", own=Verdict("partly", "default yarn"))]
    assert describe_readers(config_of("yarn"), readers) == [
        "positions (yarn) are kept by a; see docs/other-runtimes.md",
        "warning: read as something else, without an error, by b (without scaling; for=b keeps it), d (default yarn)",
    ]
    qwen = config_of("yarn") | {"model_type": "mistral"}
    assert describe_readers(qwen, [made("a", "kept"), made("b", "dropped", "without scaling")]) == [
        "positions (yarn) likely kept by a (measured in the Llama layout); see docs/other-runtimes.md",
        "warning: likely read as something else, without an error, by b (without scaling; for=b keeps it)",
    ]


def test_a_form_that_would_not_keep_the_rule_is_refused_with_the_way_out():
    reader = made("b", "dropped", own=Verdict("dropped", "without scaling"))
    with pytest.raises(
        ConfigError, match=r"for=b cannot be written: it 1\.0 would not keep yarn: without scaling; exp"
    ):
        write_form(config_of("yarn"), reader)
    _, notes = write_form(config_of("linear"), reader)
    assert notes == [f"warning: not measured with it 1.0: linear was not measured; {HOW}"]
    _, notes = write_form(config_of("yarn") | {"model_type": "mistral"}, made("a", "kept"))
    where = "in the Llama layout, not in the Mistral one"
    assert notes == [f"warning: a was measured with these positions {where}; {HOW}"]
    with pytest.raises(ConfigError, match=r"for=mlk: no such reader; did you mean mlx\?"):
        find_reader("mlk")


def test_the_worst_verdict_of_several_rules_counts():
    reader = Reader(name="a", versions=(), default={"yarn": KEPT, "partial": Verdict("dropped", "x")})
    assert reader.judge(("yarn",)) == KEPT
    assert reader.judge(("yarn", "partial")).outcome == "dropped"
    assert reader.judge(("yarn", "irope")).outcome == "not run"

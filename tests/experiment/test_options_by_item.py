"""`seed`, `max_tokens` and `temperature` can have a value for each sample or prompt: the answers are those of separate
calls, for any combination of the options, also with samples that cannot be predicted."""

import pytest
from chopmix.experiment.run import load_run
from hypothesis import given, settings
from hypothesis import strategies as st

GOOD = [{"operator": "+"}, {"operator": "-"}, {"sound": None, "operator": "+"}]
WRONG = [{"unknown": 1}, "no mapping", {"image": 5}]


@pytest.fixture(scope="module")
def run():
    return load_run("quickstart")


for_data = given(st.data())


@settings(max_examples=30, deadline=None)
@for_data
def test_answers_of_a_list_are_those_of_separate_calls(run, data):
    """An integer seed with a list of temperatures ended in "'int' object is not iterable"."""
    samples = data.draw(st.lists(st.sampled_from(GOOD + WRONG), min_size=1, max_size=5))
    if all(sample in WRONG for sample in samples):
        samples.append(GOOD[0])

    def either(values, single):
        lists = st.lists(values, min_size=len(samples), max_size=len(samples))
        return data.draw(st.one_of(lists, single))

    options = {"seed": either(st.integers(0, 9), st.integers(0, 9)),
               "temperature": either(st.sampled_from([0, 0.5, 1.0]), st.sampled_from([0, 1.0])),
               "max_tokens": either(st.integers(1, 6), st.none())}  # fmt: skip
    together = run.predict(samples, **options)
    assert len(together) == len(samples)
    for number, (sample, answer) in enumerate(zip(samples, together)):
        if sample in WRONG:
            assert answer.keys() == {"error"}
        elif isinstance(options["seed"], list) or sample not in samples[:number]:  # equal samples have other numbers
            alone = {name: value[number] if isinstance(value, list) else value for name, value in options.items()}
            (expected,) = run.predict([sample], **alone)
            assert answer == expected


@settings(max_examples=20, deadline=None)
@for_data
def test_texts_of_prompts_are_those_of_separate_calls(trained_once, data):
    run = load_run(trained_once / "runs" / "tiny")
    prompts = data.draw(st.lists(st.sampled_from(["chop", "mix", None]), min_size=1, max_size=4))
    size = {"min_size": len(prompts), "max_size": len(prompts)}
    seeds = data.draw(st.one_of(st.integers(0, 9), st.lists(st.integers(0, 9), **size)))
    heats = data.draw(st.lists(st.sampled_from([0, 1.0, 2.0]), **size))
    lengths = data.draw(st.lists(st.integers(1, 5), **size))
    texts = run.generate(prompts, seed=seeds, temperature=heats, max_tokens=lengths)
    for number, prompt in enumerate(prompts):
        if isinstance(seeds, list) or prompt not in prompts[:number]:
            seed = seeds[number] if isinstance(seeds, list) else seeds
            alone = run.generate([prompt], seed=seed, temperature=heats[number], max_tokens=lengths[number])
            assert alone == [texts[number]]


@pytest.mark.parametrize("options", [{"seed": [1]}, {"temperature": [0, 1, 1]}, {"max_tokens": []}])
def test_a_list_needs_a_value_for_each_item(run, options):
    (name,) = options
    with pytest.raises(ValueError, match=f"^{name} has {len(options[name])} values, but there are 2 items"):
        run.predict(GOOD[:2], **options)

"""A judge of generated items: the share of generated texts that are one of some words.

tasks: {word: {use: language_modeling, target: word, metrics: {real_word: {use: judge:RealWord, words: [north, east]}}}}
"""

from chopmix import Figure, Judge


class RealWord(Judge):
    def __init__(self, *, words: list[str]):
        self.words = set(words)

    figures = property(lambda self: {"": Figure("share of texts", larger_is_better=True)})

    def judge(self, generated, vocabulary):  # each has the generated `item`, and the `true` one of its sample
        return {"": sum(each.item in self.words for each in generated) / len(generated)}

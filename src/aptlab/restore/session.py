"""Prompts of a request made ready for a model: behind the skeleton of their session, where there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aptlab.restore.load import LoadedModel, require_decoder
from aptlab.sample.skeleton_rule import SkeletonRule
from aptlab.sample.texts import Prompt, encode_prompt, find_prefix


def prepare_prompts(
    model: LoadedModel,
    prompts: Sequence[Prompt],
    rule: SkeletonRule,
    max_new_tokens: int,
    note: Callable[[str], None],
) -> tuple[Prompt, ...]:
    """The prompts behind the soft tokens of their session's skeleton, which is saved; `note` is told what was done.

    It is saved before the first new token, so that nothing that becomes of the texts takes it away. Without a file,
    texts or a window the prompts come back as they are. CheckpointError as `open_session`, AptlabError for prompts
    that cannot be continued.
    """
    if not rule.active:
        return tuple(prompts)
    from aptlab.sample.loop import check_prompts
    from aptlab.sample.prefix import reserve_places
    from aptlab.sample.session import open_session

    session = open_session(rule, require_decoder(model, "skeleton").net, model.tokenizer)
    prepared = tuple(session.prepare(prompts))
    ids = [encode_prompt(model.tokenizer, prompt) for prompt in prepared]
    check_prompts(reserve_places(ids, list(map(find_prefix, prepared))), model.net, max_new_tokens)
    session.save()
    for line in session.notes:
        note(line)
    return prepared

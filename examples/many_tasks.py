"""Many tasks at once: five alive at a time, and one that fails disturbs nobody.

``max_tasks`` bounds what runs remotely, and costs money, at once. Further tasks wait for a place;
their time-outs count from the moment they were asked for.
"""

import anyio
from anywhere import sigmic

from sigmic_guard import Supervisor, TaskError

CHAPTERS = range(1, 21)


async def summarise(supervisor: Supervisor, chapter: int, summaries: dict[int, str | None]) -> None:
    try:
        result = await supervisor.run(f"Summarise chapter {chapter}", timeout=120)
    except TaskError as error:  # failed, cancelled or timed out: this chapter's business alone
        print(f"Chapter {chapter} has no summary: {error}")
    else:
        summaries[chapter] = result.final_response


async def main() -> None:
    summaries: dict[int, str | None] = {}
    async with (
        sigmic(duration=0.3, chunks=("It was", " a dark night."), fails="Summarise chapter 7"),
        Supervisor(max_tasks=5) as supervisor,
        anyio.create_task_group() as group,
    ):
        for chapter in CHAPTERS:
            group.start_soon(summarise, supervisor, chapter, summaries)
    print(f"{len(summaries)} of {len(CHAPTERS)} chapters have a summary.")


anyio.run(main)

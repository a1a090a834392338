"""User-initiated cancellation: a task in the background, and a button that ends it.

The supervisor keeps the handles of all live tasks by id, so a web service needs no table of its
own: one handler starts the task and answers its id, another one looks the id up and cancels.
"""

import anyio
from anywhere import sigmic

from sigmic_guard import Supervisor


async def press_start(supervisor: Supervisor) -> str:
    task = await supervisor.start("Reconcile the ledgers", timeout=300)
    print("Started", task.id)
    return task.id


async def press_cancel(supervisor: Supervisor, task_id: str) -> None:
    task = supervisor.tasks.get(task_id)
    if task is None:
        print("There is nothing to cancel: the task has ended.")
        return
    cancellation = await task.cancel()
    print("Cancelled:", cancellation.result)


async def main() -> None:
    async with sigmic(duration=600.0), Supervisor() as supervisor:
        # By id, as from a web page. A second press does no harm.
        task_id = await press_start(supervisor)
        await press_cancel(supervisor, task_id)
        await press_cancel(supervisor, task_id)

        # By the handle, where you have it. wait() tells how a task ended, and never raises for it.
        task = await supervisor.start("Reconcile them again", timeout=300)
        await task.cancel()
        result = await task.wait()
        print(f"The outcome is {result.outcome}, the reason {result.reason}.")


anyio.run(main)

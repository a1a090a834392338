"""Status after cancellation: read the task back, and see that it is over.

``refresh()`` asks the API, so what it shows is the remote side's own word.
"""

import anyio
from anywhere import sigmic

from sigmic_guard import Supervisor, TaskCancelled


async def main() -> None:
    async with sigmic(duration=600.0), Supervisor() as supervisor:
        task = await supervisor.start("Translate the whole archive", confirm="terminal")
        info = await task.refresh()
        print("Before:", info.status, "since", info.started_at or info.created_at)

        # confirm="terminal": do not take the API's word, look until the status is terminal.
        cancellation = await task.cancel()
        print("The cancellation is", cancellation.result)

        info = await task.refresh()
        print("After:", info.status, "at", info.completed_at, "with error", info.error)

        # The session of a cancelled task is gone. Nothing is sent that could not be obeyed.
        try:
            await task.send("Only the first page, then?")
        except TaskCancelled as error:
            print("No follow-up:", error)


anyio.run(main)

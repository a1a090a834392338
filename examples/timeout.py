"""Time-out handling: a task that takes too long ends at its deadline, remotely as well.

By hand this is a timer, an event stream, a DELETE that has to be retried, and much care about what
each of them does when another one fails. Here the time-out is an argument.
"""

import anyio
from anywhere import sigmic

from sigmic_guard import Supervisor, TaskTimedOut


async def main() -> None:
    async with sigmic(duration=60.0, chunks=("one, ", "two, ") * 300), Supervisor() as supervisor:
        # A block: whatever is in it is cancelled at the deadline, and so is the task.
        try:
            async with supervisor.task("Count to a million, in words", timeout=1.0) as task:
                print(f"Task {task.id} has one second.")
                async for event in task.events():
                    print(event.text, end="", flush=True)
                print("\nIt made it:", await task.result())
        except TaskTimedOut as error:
            print("\nToo slow:", error)
            print("The DELETE was", error.result.cancellation.result)

        # One call, and the exception by its other name.
        try:
            result = await supervisor.run("Count to a billion, in words", timeout=0.5)
            print("It made it:", result.final_response)
        except TimeoutError:
            print("Too slow again.")


anyio.run(main)

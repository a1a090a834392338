"""Approvals and follow-ups: say yes to a tool call, and ask the same task something more.

Inside its block a task that has completed can be asked again. It has ended when the block ends.
"""

import anyio
from anywhere import sigmic

from sigmic_guard import RemoteTask, Supervisor


async def listen(task: RemoteTask) -> None:
    """Print what the task says, and decide on what it asks for."""
    async for event in task.events():
        print(event.text, end="", flush=True)
        if event.type == "tool_call" and event.data["status"] == "awaiting_approval":
            approved = await task.approve(event.data["callId"], "proceed_once")
            print(f"[{event.data['toolName']}: {'approved' if approved else 'refused'}]", end=" ")


async def main() -> None:
    async with (
        sigmic(
            duration=0.5,
            approval="shell",
            chunks=("12 tests passed, ", "1 failed."),
            follow_up=("test_leap_year: ", "February had 29 days."),
        ),
        Supervisor() as supervisor,
        supervisor.task("Run the tests", auto_execute=False, timeout=120) as task,
    ):
        await listen(task)
        print()
        await task.send("Which one failed, and why?")
        await listen(task)
        result = await task.result()
        print(f"\nThe task is {result.outcome}; its last answer: {result.final_response}")


anyio.run(main)

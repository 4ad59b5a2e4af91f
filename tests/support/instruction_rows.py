"""Rows of instruction tuning that several tests write into a folder."""

CHOICE_ROWS = [
    {
        "id": f"m{n}",
        "task": "birds",
        "prompt": f"Is {n} even? (A) yes (B) no",
        "response": "(A)" if n % 2 == 0 else "(B)",
        "choices": ["yes", "no"],
        "label": n % 2,
    }
    for n in range(10)
]
"""Questions whose response is the letter of a choice."""

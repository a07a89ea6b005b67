"""`python -m tests.hostile` writes the table of hostile input to README.md."""

from tests.hostile.hostile_catalogue import README, markdown, row_count

if __name__ == "__main__":
    README.write_text(markdown(), encoding="utf-8")
    print(f"{README}: {row_count()} rows")  # noqa: T201

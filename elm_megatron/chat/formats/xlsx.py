"""An .xlsx file: the spreadsheet of students and staff."""

from __future__ import annotations

from elm_megatron.chat.eur_sheet import read_dialogues, read_preferences
from elm_megatron.chat.format import Format

FORMAT = Format(".xlsx", read_dialogues, read_preferences)

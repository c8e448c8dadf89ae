"""Training: pretraining on token shards, fine-tuning on dialogs and on preferences.

Read these files first: `loop.py` (the loop), `task.py` (what the loop needs from a task), `state.py` (one step).
"""

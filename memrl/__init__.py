"""memrl: learn to control the memory of an LLM agent, and measure what it is worth.

A MemGPT-style memory hierarchy (main context, recall, archival) is a Gymnasium environment;
policies decide what to store, retrieve and evict. Importing memrl registers
`memrl/Conversation-v0`.

Axis letters used in comments and docstrings:
    B episodes side by side    N slot rows (num_slots + 1)    K candidate rows
    W pages of a window        F row features                 G global features    A actions
"""

from memrl.registration import register_envs

__version__ = "0.1.0"

register_envs()

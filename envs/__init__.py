"""The world: workloads and environments. Importing it registers the Gymnasium ids."""

from memrl.registration import register_envs

PROJECT = "memrl"
"""Tells this package from a foreign one of the same name; see `memrl.registration.own_envs`."""

register_envs()

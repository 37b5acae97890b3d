"""When an agent goes over to compiled programs."""

from __future__ import annotations

from rltrain.engine.protocol import AgentContext


class CompileSwitch:
    """Says once when: at the environment step that was fixed for it. Until then another process compiles."""

    def __init__(self, context: AgentContext) -> None:
        self._pending = context.compile_update
        self._from_step, self._compiler = context.compile_from, context.compiler
        self._num_envs = context.config.num_envs

    def reached(self, env_steps: int) -> bool:
        """Whether programs are to be compiled now; true once. Waits for the other process."""
        if not self._pending:
            return False
        if env_steps < self._from_step:
            if self._compiler is not None:
                self._compiler.start()
            return False
        if self._compiler is not None:
            self._compiler.wait()
        self._pending = False
        return True

    def shorten(self, steps: int, env_steps: int) -> int:
        """So many vector steps, or fewer: a block ends where programs begin."""
        return min(steps, -(-(self._from_step - env_steps) // self._num_envs)) if self._pending else steps

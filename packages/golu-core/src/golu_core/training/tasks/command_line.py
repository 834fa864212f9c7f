"""The command line that all tasks share: `recipes`, `train RECIPE`, `evaluate RUN_DIR`, and its exit statuses.

Nothing here imports torch, so that help, the table of recipes and most refusals answer at once.
"""

from __future__ import annotations

import difflib
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..config.fields import check_fields
from ..config.former_names import with_new_names
from ..config.named_activations import (
    NamedActivation,
    agree_to,
    named_activation,
    only_named_code,
    planned_activation,
)
from ..config.run_config import Config, PaperRow, checked
from ..config.variants import chosen, help_of
from ..messages.errors import Interrupted, RequestError, RunFailure, status_of
from ..messages.text_sinks import complain, console, prepare_streams, say
from .run_arguments import with_run_arguments
from .task import Command, Task, installed_tasks, named_recipe, recipes_of, resolved, task_of_run

if TYPE_CHECKING:
    from ..config.own_data import Fitted

Flags = TypeVar("Flags")


@dataclass(frozen=True)
class RecipesFlags:
    """Prints the recipes with the paper's results, or one of them with all its settings."""

    show: str | None = None
    """Recipe to print in full: where it is from, the paper's results, and every setting."""


@dataclass(frozen=True)
class CommandLine(Generic[Config]):
    """The command line of a task: `recipes`, `train RECIPE`, `evaluate RUN_DIR`, and the task's own commands.

    Attributes:
        task: The task.

    Examples:
        >>> from golu_core.training import CommandLine, EpochConfig, Metric, Task
        >>> recipes = {"line": EpochConfig(recipe="line", epochs=8)}
        >>> task = Task("tiny", "Lines", "tiny", recipes, {"loss": Metric("loss", 5, False)}, "points/s", "", "")
        >>> config = CommandLine(task).config(["line", "--activation", "gelu", "--optim.lr", "0.01"])
        >>> config.epochs, config.activation, config.optim.lr
        (8, 'gelu', 0.01)
    """

    task: Task[Config]

    @property
    def program(self) -> str:
        """The console script's name, such as `golu-vision`."""
        return self.task.program

    @property
    def recipes(self) -> Mapping[str, Config]:
        """By name."""
        return recipes_of(self.task)

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Runs the command line and returns its exit status."""
        prepare_streams()
        try:
            with only_named_code():
                self._dispatch(sys.argv[1:] if arguments is None else arguments)
        except RequestError as error:
            return _complain(f"{self.program}: {error}", 2)
        except RunFailure as error:
            return _complain(f"{self.program}: {error}", 1)
        except Interrupted as stop:
            return _complain(f"{self.program}: {stop}", 128 + stop.signal_number)
        except KeyboardInterrupt:
            return _complain(f"{self.program}: interrupted", 130)
        except BrokenPipeError:  # the reader of `recipes | head` is gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except OSError as error:
            return _complain(f"{self.program}: {error or type(error).__name__}", status_of(error))
        except (MemoryError, RuntimeError) as error:
            problem = str(error).strip().partition("\n")[0] or type(error).__name__
            if not _is_lack_of_memory(error):
                raise
            return _complain(f"{self.program}: not enough memory: {problem}", 1)
        return 0

    @property
    def commands(self) -> Mapping[str, Command]:
        """By name."""
        return {
            "recipes": Command(
                "list the recipes, or show one with its settings", self._recipes, "[flags]", RecipesFlags
            ),
            "train": Command("train a recipe, or continue its run", self._train, "RECIPE [flags]"),
            "evaluate": Command(
                "evaluate a finished run", self._evaluate, "RUN_DIR [flags]", self.task.evaluation_flags
            ),
            **self.task.commands,
        }

    def _dispatch(self, arguments: Sequence[str]) -> None:
        commands = self.commands
        first, *rest = arguments or ["--help"]
        if first in ("-h", "--help"):
            say(self._help(commands))
        elif first == "--version":
            from importlib.metadata import version

            say(version(self.task.distribution))
        elif first in commands and first != "train" and any(word in ("-h", "--help") for word in rest):
            self._print_help_of(first, commands[first])
        elif first in commands:
            if commands[first].takes_run:
                self._refuse_run_of_another_task(first, rest)
            resolved(commands[first].run)(rest)
        elif first in self.task.moved:
            command = shlex.join([*self.task.moved[first].split(), *rest])
            raise RequestError(f"{first} has moved to another program: {command}")
        else:
            raise RequestError(f"unknown command {first!r}{_nearest(first, commands)}; try {self.program} --help")

    def _refuse_run_of_another_task(self, name: str, words: Sequence[str]) -> None:
        if not words or not Path(words[0]).is_dir():
            return
        owner = task_of_run(Path(words[0]))
        if owner is None or owner.name == self.task.name:
            return
        can = name == "evaluate" or name in owner.commands
        hint = f"use {owner.program} {name} {shlex.quote(words[0])}" if can else f"{owner.program} has no {name}"
        raise RequestError(f"{words[0]} is a run of {owner.program}: {hint}")

    def _print_help_of(self, name: str, command: Command) -> None:
        program = f"{self.program} {name}"
        if command.flags is None:
            say(f"usage: {program} {command.usage}".rstrip() + f"\n\n{command.help}")
        else:
            flags = resolved(command.flags)
            parsed_flags(with_run_arguments(flags) if command.takes_run else flags, ["--help"], program)

    def _help(self, commands: Mapping[str, Command]) -> str:
        width = max(len(f"{name} {command.usage}") for name, command in commands.items()) + 2
        lines = [f"  {f'{name} {c.usage}'.ljust(width)}{c.help}" for name, c in commands.items()]
        first = next(iter(self.recipes))
        return "\n".join(
            [
                f"usage: {self.program} [--version] COMMAND",
                "",
                *lines,
                "",
                f"recipes: {', '.join(self.recipes)}",
                f"flags of a recipe: {self.program} train {first} --help",
                f"flags of another command: {self.program} evaluate --help",
                f"several processes: accelerate launch -m {self.task.package} train RECIPE [flags]",
            ]
        )

    def _recipes(self, arguments: Sequence[str]) -> None:
        flags = parsed_flags(RecipesFlags, arguments, f"{self.program} recipes") if arguments else RecipesFlags()
        if flags.show is None:
            _print_recipes(self.program, self.recipes)
            return
        from .recipe_page import recipe_page

        say(recipe_page(self.task, self._recipe(flags.show)))

    def _train(self, arguments: Sequence[str]) -> None:
        if not arguments or arguments[0] in ("-h", "--help"):
            say(f"usage: {self.program} train RECIPE [flags]\n\nrecipes: {', '.join(self.recipes)}")
            say(f"flags of a recipe: {self.program} train {next(iter(self.recipes))} --help")
            return
        config, said = self._resolved(arguments, named_activation)
        if os.environ.get("RANK", "0") == "0":
            say("".join(f"{sentence}\n" for sentence in said), end="")
        resolved(self.task.train)(config)

    def config(self, arguments: Sequence[str]) -> Config:
        """The config of `RECIPE [flags]`; the code of its activation is not run.

        Raises:
            RequestError: there is no such recipe, or a value is impossible. For a wrong flag tyro exits with status 2.
        """
        return self._resolved(arguments, planned_activation)[0]

    def _resolved(
        self, arguments: Sequence[str], named: Callable[[str], NamedActivation]
    ) -> tuple[Config, tuple[str, ...]]:
        """The config, and what is to be said of values that were chosen from the user's data."""

        def with_activation(config: Config) -> Config:
            activation = named(config.activation)
            return replace(config, activation=activation.text, activation_source=activation.source)

        name, *typed = arguments
        recipe = self._recipe(name)
        flags, notes = with_new_names(type(recipe), typed)
        _tell(self.program, notes)
        fitted = self._fitted(recipe, flags)
        if fitted is None:
            return checked(with_activation(self._parsed(recipe, flags))), ()
        from ..config.own_data import choices, cut_batch

        config, cut = cut_batch(self._parsed(fitted.recipe, flags), fitted)
        chosen_flags = choices(recipe, fitted, config)
        said = (f"{name}: {fitted.found}", f"chosen for them: {chosen_flags or 'nothing: you set every field'}", *cut)
        return checked(with_activation(config)), said

    def _parsed(self, recipe: Config, flags: Sequence[str]) -> Config:
        """A recipe with flags; tyro exits with status 2 for a wrong one."""
        import tyro

        recipe, left = chosen(recipe, flags)
        return tyro.cli(
            type(recipe),
            default=recipe,
            args=left,
            prog=f"{self.program} train {recipe.recipe}",
            description=help_of(recipe),
            config=(tyro.conf.AvoidSubcommands,),
        )

    def _fitted(self, recipe: Config, flags: Sequence[str]) -> Fitted[Config] | None:
        """The recipe fitted to the user's data; None where it is not fitted to any, or they are not named."""
        import tyro

        fit = self.task.own_data.get(recipe.recipe)
        if fit is None or any(word in ("-h", "--help") for word in flags):
            return None
        with_choices, left = chosen(recipe, flags)
        # flags of what the data decide, such as another augmentation's, are understood after it is decided
        asked: Any
        asked, _ = tyro.cli(
            type(recipe),
            default=with_choices,
            args=left,
            prog=f"{self.program} train {recipe.recipe}",
            config=(tyro.conf.AvoidSubcommands,),
            return_unknown_args=True,
        )
        check_fields(asked.data, "--data.")
        from ..config.own_data import given_fields

        found: Fitted[Config] | None = resolved(fit)(recipe, asked, given_fields(flags))
        return found

    def _recipe(self, name: str) -> Config:
        if name in self.recipes:
            return self.recipes[name]
        if ":" not in name:
            for other in installed_tasks().values():
                if name in recipes_of(other):
                    raise RequestError(_elsewhere(name, other))
            raise RequestError(
                f"unknown recipe {name!r}{_nearest(name, self.recipes)}; the recipes are {', '.join(self.recipes)}; "
                f"to use your own: ./file.py:name"
            )
        task, recipe = named_recipe(name)
        if task.name != self.task.name:
            raise RequestError(_elsewhere(name, task))
        own: Config = recipe
        return own

    def _evaluate(self, arguments: Sequence[str]) -> None:
        folder, flags = parsed_run_flags(resolved(self.task.evaluation_flags), arguments, f"{self.program} evaluate")
        resolved(self.task.evaluate)(folder, flags)


def parsed_run_flags(flags: type[Flags], arguments: Sequence[str], program: str) -> tuple[Path, Flags]:
    """Return the run folder that a command line begins with, and the command's flags.

    The command also understands `--activation` and `--trust-activation`, and heeds them until it ends.

    Args:
        flags: The command's frozen dataclass of flags. A field that is `tyro.conf.Positional` stands after the folder.
        arguments: The arguments after the command's name.
        program: The command as it is typed, such as `golu-lm generate`.

    Raises:
        RequestError: A value is impossible, there is no such folder, or what `--activation` names is not an activation.
            For a wrong flag tyro exits with status 2.
    """
    parsed: Any = parsed_flags(with_run_arguments(flags), arguments, program)
    if not parsed.run_dir.is_dir():
        raise RequestError(f"there is no run folder {parsed.run_dir}")
    agree_to(parsed)
    return parsed.run_dir, parsed


def parsed_flags(flags: type[Flags], arguments: Sequence[str], program: str) -> Flags:
    """Return the flags of a command, checked. For a wrong flag tyro exits with status 2."""
    import tyro

    words, notes = with_new_names(flags, arguments)
    _tell(program.partition(" ")[0], notes)
    parsed = tyro.cli(flags, args=words, prog=program)
    check_fields(parsed)
    return parsed


def _print_recipes(program: str, recipes: Mapping[str, Config]) -> None:
    """Prints the table of recipes with the paper's results."""
    from rich.table import Table

    table = Table(title=f"Recipes of {program}, with the paper's results", box=None, header_style="bold")
    for column in ("recipe", "model", "dataset", "metric", "parameters", "paper: ReLU", "GELU", "GoLU"):
        numeric = column in ("parameters", "paper: ReLU", "GELU", "GoLU")
        table.add_column(column, justify="right" if numeric else "left", no_wrap=True)
    for name, recipe in recipes.items():
        row = recipe.paper or PaperRow("-", "-", recipe.primary_metric, 0)
        means = {name: mean for name, (mean, _) in row.results.get(row.metric, {}).items()}
        results = [f"{means[name]:g}" if name in means else "-" for name in ("relu", "gelu", "golu")]
        size = _shown_size(row.size) if row.size else "-"
        table.add_row(name, row.model, row.dataset, row.metric, size, *results)
    console(width=max(120, console().width)).print(table)


def _shown_size(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} M" if parameters >= 1e6 else f"{parameters / 1e3:.0f} k"


def _elsewhere(recipe: str, task: Task[Any]) -> str:
    return f"{recipe} is a recipe of {task.program}: use {task.program} train {shlex.quote(recipe)}"


def _nearest(word: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _is_lack_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(
        words in text for words in ("allocate memory", "out of memory", "size calculation overflowed")
    )


def _tell(program: str, notes: Sequence[str]) -> None:
    """Prints notes on standard error, from one process of many."""
    for note in notes:
        _complain(f"{program}: {note}", 0)


def _complain(message: str, status: int) -> int:
    """Prints a message on standard error, from one process of many."""
    if os.environ.get("RANK", "0") == "0":
        complain(message)
    return status

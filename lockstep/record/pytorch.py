"""Records a run in PyTorch, update by update, from hooks that only look on.

    recorder = lockstep.record.torch("run-a/", model, optimizer)

A window is what lies between two steps of an optimizer. In it each `backward()` is a micro-batch:
a hook of each parameter sees its gradient before it is added to what `.grad` holds. An update is
written as soon as every parameter that got a gradient has been stepped; where several optimizers
leave some out, when the next window begins.
"""

from __future__ import annotations

import atexit
import functools
import os
import weakref
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # every optimizer loads it
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from lockstep.record import pytorch_watch
from lockstep.record.pytorch_model import (
    check,
    check_optimizer,
    check_parameter,
    clean,
    compiled,
    inner_optimizer,
    number,
    parameters_of,
    place,
    scalar,
    settled,
    unwrapped,
    versions,
    wider,
)
from lockstep.record.pytorch_tensors import (
    Held,
    data_in,
    fetched,
    fingerprints,
    held,
    targets_of,
    tensors_in,
)
from lockstep.record.writer import (
    LARGE,
    MEASURED,
    STATISTICS,
    RecordError,
    Writer,
    activation_key,
)

Arguments = tuple[Any, ...]
Options = dict[str, Any]
# How many forward passes before a backward() are remembered.
PASSES = 64


@dataclass
class Window:
    """What is known so far of the update that comes next."""

    number: int
    whole: bool
    arrays: dict[str, Held] = field(default_factory=dict)
    micro_batches: list[dict[str, Any]] = field(default_factory=list)
    rates: dict[str, float | None] = field(default_factory=dict)
    decays: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    # Parameters that got a gradient, and those whose optimizer has done its step, or left it out.
    touched: set[str] = field(default_factory=set)
    settled: set[str] = field(default_factory=set)
    # The modules whose inputs and outputs are kept, in the order in which they returned.
    modules: list[str] = field(default_factory=list)
    stepped: bool = False


@dataclass
class Undo:
    """A handle of what is no hook."""

    remove: Callable[[], None]


class Recorder:
    """Records what a model's training does; `close()` ends it, and so does the process' end.

    optimizers: those to record; without any, each that steps a parameter of the model. full, every,
    at: of which updates whole tensors are kept, see `Writer`. activations: what goes into and comes
    out of all modules (True) or some (their names) is kept too, of the first micro-batch of those
    updates. average: a module, or tensors by the parameters' names, that is kept beside the
    parameters as their average. ranks: 0 records the first process alone, "all" each in a folder
    of its own.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        model: Any,
        *optimizers: Any,
        full: int = 3,
        every: int | None = None,
        at: Collection[int] = (),
        activations: bool | Collection[str] = False,
        average: Any = None,
        ranks: int | str = 0,
    ) -> None:
        """Put the hooks in place, and write what is known of the run."""
        check(model, optimizers, ranks)
        self.model = unwrapped(model)
        self.called = model
        self.optimizers = [inner_optimizer(optimizer) for optimizer in optimizers]
        self.handles: list[Any] = []
        self.open = False
        self.named: dict[str, Any] = {}
        self.names: dict[int, str] = {}
        self.hooked: set[int] = set()
        # The optimizers, and what of each is in the file of the run.
        self.known: list[Any] = []
        self.told: dict[int, dict[str, Any]] = {}
        self.notes: list[str] = []
        self.data: list[tuple[bool, list[dict[str, Any]]]] = []
        self.pending: dict[str, Held] = {}
        self.confirmed: dict[str, Held] = {}
        # Of which parameters an optimizer has kept a state.
        self.stateful: set[str] = set()
        # Whose gradient was the first that came to an empty `.grad`, which it then is.
        self.first: set[str] = set()
        self.queued = False
        self.inside = False
        self.scaler: Any = None
        self.skipped = 0
        self.state_known = False
        self.process = os.getpid()
        rank, count = place()
        if ranks != "all" and rank != ranks:
            return
        self.world = {"rank": rank, "ranks": count}
        folder = Path(folder) / f"rank-{rank}" if ranks == "all" else folder
        self.learn_names()
        self.average = average
        if average is not None and not self.averages.keys() & self.named.keys():
            raise RecordError("average: it has no parameter by a name of the model's")
        if any(name.endswith("running_mean") for name, _ in self.model.named_buffers()):
            self.notes.append(STATISTICS)
        self.modules = self.chosen(activations)
        self.writer = Writer(folder, "pytorch", full, every, at)
        self.window = self.new_window()
        self.open = True
        self.put_hooks()
        for name, module in self.modules.items():
            hook = functools.partial(self.module_returns, name)
            self.handles.append(module.register_forward_hook(hook, with_kwargs=True))
        self.write_run()
        for optimizer in self.optimizers:
            self.introduce(optimizer)

    def __deepcopy__(self, _: Any) -> Recorder:
        """A copied model, such as an average of it, has the hooks; it is not recorded."""
        return self

    def __reduce__(self) -> Any:
        """A model that is pickled whole takes no recorder along."""
        return Nobody, ()

    def __enter__(self) -> Recorder:
        """As a context, it is closed at the end."""
        return self

    def __exit__(self, *_: Any) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Write what waits, and take the hooks away."""
        if not self.open:
            return
        if self.window.stepped:
            self.write_update()
        self.open = False
        pytorch_watch.forget(self)
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    # What is hooked.

    def put_hooks(self) -> None:
        """Hook the model and the optimizers."""
        self.handles.append(
            self.called.register_forward_pre_hook(self.model_called, with_kwargs=True)
        )
        for child in self.model.children():
            self.handles.append(
                child.register_forward_pre_hook(self.child_called, with_kwargs=True)
            )
        self.handles.append(self.called.register_forward_hook(self.model_returns))
        if self.called._compiled_call_impl is not None:
            self.see_compiled_call(self.called)
        if self.optimizers:
            for optimizer in self.optimizers:
                self.handles.append(optimizer.register_step_pre_hook(self.before_step))
                self.handles.append(optimizer.register_step_post_hook(self.after_step))
        else:
            self.handles.append(register_optimizer_step_pre_hook(self.before_step))
            self.handles.append(register_optimizer_step_post_hook(self.after_step))
        pytorch_watch.watch(self)
        atexit.register(close_all, weakref.ref(self))

    def see_compiled_call(self, module: Any) -> None:
        """Look on from outside at what `module.compile()` has made: hooks are compiled away."""
        original = module._compiled_call_impl

        def called(*arguments: Any, **options: Any) -> Any:
            self.model_called(module, arguments, options)
            try:
                return original(*arguments, **options)
            finally:
                self.inside = False

        module._compiled_call_impl = called
        self.handles.append(Undo(lambda: setattr(module, "_compiled_call_impl", original)))

    def chosen(self, activations: bool | Collection[str]) -> dict[str, Any]:
        """The modules whose inputs and outputs are asked for, by their names."""
        modules = {clean(name): module for name, module in self.model.named_modules()}
        names = list(modules) if activations is True else list(activations or ())
        if names and compiled(self.called):
            raise RecordError(
                "activations= needs a model that is not compiled: record it without torch.compile"
            )
        for name in names:
            if name not in modules:
                raise RecordError(f"activations: the model has no module {name!r}")
        return {name: modules[name] for name in names}

    def learn_names(self) -> None:
        """Name the parameters, and hook those that get gradients and have no hooks yet."""
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            check_parameter(name, parameter)
            if id(parameter) not in self.names:
                self.add_parameter(clean(name), parameter)

    def add_parameter(self, name: str, parameter: Any) -> None:
        """Know a parameter under a name."""
        self.names[id(parameter)] = name
        self.named[name] = parameter

    @functools.cached_property
    def averages(self) -> Mapping[str, Any]:
        """The averages that are kept beside the parameters, by their names."""
        if self.average is None or isinstance(self.average, Mapping):
            return self.average or {}
        averaged = isinstance(self.average, torch.optim.swa_utils.AveragedModel)
        module = unwrapped(self.average.module if averaged else self.average)
        return {clean(name): each for name, each in module.named_parameters()}

    def hook_parameters(self) -> None:
        """Hook the parameters that get gradients and have no hooks yet."""
        for name, parameter in self.named.items():
            if parameter.requires_grad and id(parameter) not in self.hooked:
                self.hooked.add(id(parameter))
                own = functools.partial(self.gradient_comes, name)
                added = functools.partial(self.gradient_added, name)
                self.handles.append(parameter.register_hook(own))
                self.handles.append(parameter.register_post_accumulate_grad_hook(added))

    # The forward pass.

    def model_called(self, module: Any, arguments: Arguments, options: Options) -> None:
        """Keep what tells the data apart, where a gradient will be asked for."""
        if torch.compiler.is_compiling() or self.inside or not self.looks(module, self.called):
            return
        self.inside = True
        self.see_data(arguments, options)

    def compiled_called(self, module: Any, arguments: Arguments, options: Options) -> None:
        """The same where the model was compiled later, and its own hooks with it."""
        if module is not self.called and unwrapped(module) is self.model:
            self.model_called(self.called, arguments, options)

    def compiled_returns(self, module: Any) -> None:
        """A compiled model's hook does not say so."""
        if unwrapped(module) is self.model:
            self.inside = False

    def child_called(self, module: Any, arguments: Arguments, options: Options) -> None:
        """The same for a loop that calls the model's parts itself."""
        if torch.compiler.is_compiling() or self.inside or not self.looks(module, None):
            return
        if any(module is child for child in self.model.children()):
            self.see_data(arguments, options)

    def model_returns(self, *_: Any) -> None:
        """The model's parts are called by others again."""
        if not torch.compiler.is_compiling():
            self.inside = False

    def looks(self, module: Any, wanted: Any) -> bool:
        """Whether a call belongs to training, and is not a copy's; torch.func's have no numbers."""
        if not (self.open and torch.is_grad_enabled()) or pytorch_watch.DEPTH[0]:
            return False
        if torch._C._functorch.maybe_current_level() is not None:
            return False
        return wanted is None or module is wanted

    def see_data(self, arguments: Arguments, options: Options) -> None:
        """Take the data of a forward pass; with it may begin a window."""
        self.begin()
        self.hook_parameters()
        tensors = data_in((arguments, options))
        found = fingerprints(tensors)
        if found:
            self.keep("data", tensors)
            self.data = [*self.data[1 - PASSES :], (self.model.training, found)]

    def module_returns(
        self, name: str, module: Any, arguments: Arguments, options: Options, output: Any
    ) -> None:
        """Keep the inputs and outputs of a module's first call."""
        if torch.compiler.is_compiling() or not self.looks(module, self.modules[name]):
            return
        if not self.keeps_activations() or name in self.window.modules:
            return
        self.window.modules.append(name)
        for kind, value in (("input", (arguments, options)), ("output", output)):
            for index, tensor in enumerate(tensors_in(value)):
                key = activation_key(kind, index, name)
                self.window.arrays[key] = held(tensor, whole=True)

    def keeps_activations(self) -> bool:
        """Whether this is the first micro-batch of a whole update, and activations are wanted."""
        return bool(self.modules) and self.window.whole and not self.window.micro_batches

    def keep(self, phase: str, tensors: list[Any]) -> None:
        """Keep data whole, beside the activations that they lead to."""
        if self.keeps_activations():
            for index, tensor in enumerate(tensors):
                if tensor.numel() <= LARGE:
                    self.window.arrays[f"{phase}.0|{index}"] = held(tensor, whole=True)

    # The backward pass.

    def gradient_comes(self, name: str, gradient: Any) -> None:
        """A micro-batch's gradient, before it is added; it may be asked for and not be added."""
        if not self.open:
            return
        self.begin()
        if not pytorch_watch.DEPTH[0] and not self.queued:
            # Who called the engine itself: the end of this pass shows nothing of the loss.
            self.queued = True
            torch.autograd.Variable._execution_engine.queue_callback(self.unseen_backward_done)
        self.take_average(name)
        parameter = self.named[name]
        # Other hooks, and an average over processes, may make it something else.
        hooks = len(parameter._backward_hooks) + len(parameter._post_accumulate_grad_hooks)
        if parameter.grad is None and hooks == 2 and place()[1] == 1:
            self.first.add(name)
        self.pending[name] = held(gradient, self.window.whole, measured=name in self.first)

    def gradient_added(self, name: str, parameter: Any) -> None:
        """The gradient is in `.grad`."""
        if name in self.pending:
            self.confirmed[name] = self.pending.pop(name)

    def unseen_backward_done(self) -> None:
        """The pass' other callbacks, such as an average over processes, come before."""
        again = torch.autograd.Variable._execution_engine.queue_callback
        again(lambda: self.backward_done(None))

    def backward_begins(self, tensors: Any) -> None:
        """Keep what the loss was compared with, which its graph forgets as it is walked."""
        if self.open and self.keeps_activations():
            self.keep("targets", targets_of(tensors))

    def backward_done(self, tensors: Any) -> None:
        """A micro-batch is over: keep its gradients, and what all have come to."""
        self.queued = self.inside = False
        self.pending.clear()
        if not self.open or not self.confirmed:
            return
        window, index = self.window, len(self.window.micro_batches)
        facts: dict[str, Any] = {"data": self.take_data()}
        loss = scalar(tensors)
        if loss is not None:
            facts["loss"] = loss
        window.micro_batches.append(facts)
        for name, taken in self.confirmed.items():
            window.arrays[f"gradient.{index}|{name}"] = taken
            window.touched.add(name)
        self.confirmed = {}
        for name in window.touched:
            if name in self.first:
                window.arrays[f"accumulated|{name}"] = window.arrays[f"gradient.{index}|{name}"]
            else:
                self.take("accumulated", name, self.named[name].grad)
        self.first.clear()

    def take_data(self) -> list[dict[str, Any]]:
        """The data of the passes before; of validation's only where there was no other."""
        passes, self.data = self.data, []
        trains = any(train for train, _ in passes)
        return [one for train, found in passes if train or not trains for one in found]

    # The step.

    # A compiled step is left for the hooks, and gone on with.
    @torch._disable_dynamo
    def before_step(self, optimizer: Any, arguments: Arguments, options: Options) -> Any:
        """What the optimizer will read; with a closure, when that has made the gradients."""
        if not self.open or not self.has(optimizer):
            return None
        if pytorch_watch.DEPTH[0] or self.queued:
            raise RecordError(
                "an optimizer steps inside backward(): record the run with one step after it"
            )
        self.introduce(optimizer)
        names = self.names_of(optimizer)
        if self.window.settled & set(names):
            self.begin()
        self.take_before(optimizer, names)
        closure = options.get("closure") or (arguments[1] if len(arguments) > 1 else None)
        if not callable(closure):
            self.take_clipped(optimizer)
            return None
        seen = self.seen_closure(optimizer, closure)
        if "closure" in options:
            return arguments, {**options, "closure": seen}
        return (arguments[0], seen, *arguments[2:]), options

    def seen_closure(self, optimizer: Any, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure, after which what it has made is taken."""

        def seen() -> Any:
            value = closure()
            with torch.no_grad():
                self.take_clipped(optimizer)
            return value

        return seen

    def take_before(self, optimizer: Any, names: list[str]) -> None:
        """Take the parameters and settings, and the state where the last record has it not."""
        window = self.window
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                name = self.names[id(parameter)]
                window.rates[name] = number(group["lr"]) if "lr" in group else None
                if isinstance(group.get("weight_decay"), (int, float, torch.Tensor)):
                    window.decays[name] = number(group["weight_decay"])
        for name in names:
            self.take("before", name, self.named[name])
            self.take_average(name)
        # What another optimizer steps later begins here, too.
        begin = self.named if window.number == 1 and window.whole else self.frozen()
        for name in begin:
            if f"before|{name}" not in window.arrays:
                self.take("before", name, self.named[name])
        kept = any(optimizer.state.get(self.named[name]) for name in names)
        if self.stateful & set(names) and not kept:
            window.facts["emptied"] = True
        if window.whole and not self.state_known:
            self.take_state("state-before", optimizer, names)

    def take_clipped(self, optimizer: Any) -> None:
        """Take the gradients as the optimizer's rule gets them."""
        scale = getattr(optimizer, "grad_scale", None)
        for name in self.names_of(optimizer):
            gradient = self.named[name].grad
            if gradient is not None:
                self.take("clipped", name, gradient if scale is None else gradient / scale)

    @torch._disable_dynamo
    def after_step(self, optimizer: Any, arguments: Arguments, options: Options) -> None:
        """Take the parameters and the state after the step."""
        if not self.open or not self.has(optimizer):
            return
        names = self.names_of(optimizer)
        found = getattr(optimizer, "found_inf", None)
        self.window.settled |= set(names)
        # A fused optimizer is called with a gradient that is not finite, and leaves it out itself.
        if found is None or not number(found):
            self.window.stepped = True
            for name in names + self.frozen():
                self.take("after", name, self.named[name])
            self.take_state("state", optimizer, names)
            self.stateful |= {name for name in names if optimizer.state.get(self.named[name])}
        self.settle()

    def take_state(self, phase: str, optimizer: Any, names: list[str]) -> None:
        """Take the optimizer's state, under its own names."""
        for name in names:
            for slot, value in optimizer.state.get(self.named[name], {}).items():
                if isinstance(value, (bool, int, float)):
                    value = torch.tensor(value)
                if isinstance(value, torch.Tensor):
                    self.take(f"{phase}.{slot}", name, value)
                elif value is not None:
                    self.note(f"The optimizer's state {slot!r} is no array, and is not recorded.")

    def scaler_steps(self, scaler: Any) -> None:
        """The scale that this window's gradients carry, before it may change."""
        self.window.facts["scale"] = scaler.get_scale()

    def scaler_stepped(self, optimizer: Any) -> None:
        """A step that was left out is one that called no hook."""
        optimizer = inner_optimizer(optimizer)
        if self.open and self.has(optimizer):
            names = set(self.names_of(optimizer))
            if self.window.micro_batches and not names & self.window.settled:
                self.window.settled |= names
                self.settle()

    # The window.

    def new_window(self) -> Window:
        """A window for the next update."""
        self.hook_parameters()
        update = self.writer.written + 1
        return Window(update, self.writer.whole(update))

    def begin(self) -> None:
        """Something of a window comes: if the last is over, it ends here."""
        if self.window.stepped:
            self.write_update()
        elif self.window.settled:
            self.skip()

    def skip(self) -> None:
        """Count a window whose step was left out."""
        self.skipped += 1
        self.window = self.new_window()

    def settle(self) -> None:
        """End the window if no parameter that got a gradient waits for its optimizer."""
        if not self.window.touched <= self.window.settled:
            return
        if self.window.stepped:
            self.write_update()
        else:
            self.skip()

    def write_update(self) -> None:
        """Write the window, and begin the next."""
        window = self.window
        arrays, sizes = fetched(window.arrays)
        micro_batches = [
            facts | ({"loss": number(facts["loss"])} if "loss" in facts else {})
            for facts in window.micro_batches
        ]
        scale = window.facts.get("scale")
        for facts in micro_batches:
            if scale and "loss" in facts:
                facts["loss"] /= scale
        facts = {
            "micro_batches": micro_batches,
            "rates": {name: rate for name, rate in window.rates.items() if rate is not None},
            "decays": window.decays,
            "skipped": self.skipped,
            "sizes": sizes,
            "dtypes": wider(window.arrays),
        }
        if window.modules:
            facts["modules"] = window.modules
        self.look_for_gaps(window)
        self.writer.update(window.number, arrays, facts | window.facts)
        if self.writer.ended:
            self.window.stepped = False
            self.close()
            return
        self.skipped = 0
        self.state_known = window.whole
        self.window = self.new_window()

    def look_for_gaps(self, window: Window) -> None:
        """Say once what could not be seen."""
        if not window.micro_batches:
            self.note("No backward() was seen: gradients were made by other means.")
        elif not any(facts["data"] for facts in window.micro_batches):
            self.note(
                "The data was not seen: another model than the one handed over was called, or this "
                "one inside of what is compiled."
            )
        if window.micro_batches and not any("loss" in facts for facts in window.micro_batches):
            self.note("The loss was not seen.")

    def note(self, sentence: str) -> None:
        """Add a sentence on what could not be seen, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)
            self.write_run()

    def take(self, phase: str, name: str, tensor: Any) -> None:
        """Keep a tensor of the window, if there is one."""
        if tensor is not None:
            key = f"{phase}|{name}"
            self.window.arrays[key] = held(tensor, self.window.whole, key.startswith(MEASURED))

    def take_average(self, name: str) -> None:
        """Keep a parameter's average as it is when the first gradient of a window comes.

        Some loops take it before the step, which it is then behind.
        """
        if self.average is not None and f"average|{name}" not in self.window.arrays:
            self.take("average", name, self.averages.get(name))

    # The run.

    def has(self, optimizer: Any) -> bool:
        """Whether an optimizer steps anything of the model."""
        if self.optimizers:
            return any(optimizer is mine for mine in self.optimizers)
        return any(
            id(parameter) in self.names
            for group in optimizer.param_groups
            for parameter in group["params"]
        )

    def names_of(self, optimizer: Any) -> list[str]:
        """The names of what an optimizer steps, in its order."""
        return [
            self.names[id(parameter)]
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]

    def frozen(self) -> list[str]:
        """Which parameters no optimizer steps: their values are kept in whole updates."""
        if not self.window.whole:
            return []
        stepped = {name for optimizer in self.known for name in self.names_of(optimizer)}
        return [
            name
            for name, parameter in self.named.items()
            if name not in stepped or not parameter.requires_grad
        ]

    def introduce(self, optimizer: Any) -> None:
        """Know an optimizer, and parameters of it that are none of the model's."""
        check_optimizer(optimizer)
        for order, group in enumerate(optimizer.param_groups):
            for index, parameter in enumerate(group["params"]):
                if id(parameter) not in self.names:
                    self.learn_names()
                if id(parameter) not in self.names:
                    self.add_parameter(f"optimizer.{order}.{index}", parameter)
                    self.note("An optimizer steps parameters that the model does not have.")
        self.hook_parameters()
        settings = self.settings(optimizer)
        told = self.told.get(id(optimizer))
        if told is None:
            self.known.append(optimizer)
        if told is None or parameters_of(told) != parameters_of(settings):
            self.told[id(optimizer)] = settings
            self.write_run()
            return
        # Schedules change more than rates: momentum, in some.
        for now, then in zip(settings["groups"], told["groups"]):
            new = {key: value for key, value in now.items() if then.get(key) != value}
            new = {key: value for key, value in new.items() if key not in ("lr", "weight_decay")}
            for name in now["parameters"] if new else ():
                self.window.facts.setdefault("settings", {})[name] = new

    def write_run(self) -> None:
        """Write what is known of the run."""
        facts: dict[str, Any] = {
            "versions": versions(),
            "parameters": self.parameters(),
            "optimizers": [self.told[id(optimizer)] for optimizer in self.known],
            "notes": self.notes,
            "compiled": compiled(self.called),
            "devices": sorted({str(parameter.device) for parameter in self.named.values()}),
            "matmul_precision": torch.get_float32_matmul_precision(),
        }
        self.writer.run(facts | (self.world if self.world["ranks"] > 1 else {}))

    def parameters(self) -> list[dict[str, Any]]:
        """The parameters as they are listed."""
        others: dict[str, list[str]] = {}
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            others.setdefault(self.names[id(parameter)], []).append(clean(name))
        return [
            {
                "name": name,
                "shape": list(parameter.shape),
                "dtype": str(parameter.dtype).removeprefix("torch."),
                "trainable": parameter.requires_grad,
                "tied": [other for other in others.get(name, []) if other != name],
            }
            for name, parameter in self.named.items()
        ]

    def settings(self, optimizer: Any) -> dict[str, Any]:
        """An optimizer's class and groups, with the settings that are plain."""
        groups = []
        for group in optimizer.param_groups:
            names = [self.names[id(parameter)] for parameter in group["params"]]
            plain = {key: settled(value) for key, value in group.items() if key != "params"}
            known = {key: value for key, value in plain.items() if value is not None}
            groups.append({"parameters": names} | known)
        return {"name": type(optimizer).__name__, "groups": groups}


class Nobody:
    """In a recorder's place in a pickled model: its hooks do nothing."""

    def __getattr__(self, name: str) -> Any:
        """Every hook."""
        if name.startswith("__"):
            raise AttributeError(name)
        return nothing


def nothing(*_: Any, **__: Any) -> None:
    """Do nothing."""


def close_all(reference: Any) -> None:
    """Close a recorder at the process' end, if it is there."""
    recorder = reference()
    # A forked process has the recorder too.
    if recorder is not None and recorder.process == os.getpid():
        recorder.close()

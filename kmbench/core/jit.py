"""The compile decorators: every numba flag of the core, once, with its reason.

``_nrt=False``
    The core allocates nothing, so reference counts are pure cost: without this every helper that
    takes the state counts references of dozens of arrays (measured 2-6 x the time of C).
``forceinline=True``
    What a hot path calls is known in full where it is called.  Every helper says yes or no: numba
    hands the flag down to what is first compiled in its caller.
``no_cpython_wrapper``, ``no_cfunc_wrapper``
    Helpers are called from compiled code only; their wrappers would double the compile time.
``error_model="numpy"``
    Divisors of the model are never zero; saves the branch and its exception.

With ``NUMBA_DISABLE_JIT=1`` the decorators return the plain function and the model runs as Python.
"""

from collections.abc import Callable
from contextlib import contextmanager
from functools import wraps
from types import CodeType

from numba.core import config, typed_passes, types, untyped_passes
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_lock import global_compiler_lock as one_at_a_time
from numba.core.compiler_machinery import PassManager
from numba.core.dispatcher import Dispatcher
from numba.core.registry import CPUDispatcher
from numba.core.sigutils import normalize_signature
from numba.core.typing.templates import Signature

JIT = not config.DISABLE_JIT

_COMMON = {"nopython": True, "nogil": True, "_nrt": False, "error_model": "numpy"}
_HELPER = {**_COMMON, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": False}


class _Compiler(CompilerBase):
    """numba's pipeline without the passes that plain functions of records give nothing to do: a
    seventh of the compile time.  A function with functions inside has all of them."""

    def define_pipelines(self):
        """The one pipeline."""
        if any(isinstance(constant, CodeType) for constant in self.state.func_id.code.co_consts):
            return [DefaultPassBuilder.define_nopython_pipeline(self.state)]
        made = PassManager("helper")
        for step in _STEPS:
            made.add_pass(step, step.name())
        made.finalize()
        return [made]


_STEPS = (
    untyped_passes.TranslateByteCode,
    untyped_passes.FixupArgs,
    untyped_passes.IRProcessing,
    untyped_passes.GenericRewrites,
    untyped_passes.ReconstructSSA,
    typed_passes.NopythonTypeInference,
    typed_passes.PreLowerStripPhis,
    typed_passes.NoPythonSupportedFeatureValidation,
    typed_passes.IRLegalization,
    typed_passes.AnnotateTypes,
    typed_passes.NativeLowering,
    typed_passes.NoPythonBackend,
)


class _Part(JITCodeLibrary):
    """Code of a helper: never linked, optimised or made executable by itself.

    An engine links all that it reaches once and optimises it once (:class:`_Whole`).  Doing so for
    each of some 200 helpers, with copies of all they call, took over a third of the compile time.
    """

    def _optimize_functions(self, ll_module):
        ll_module.data_layout = self._codegen._data_layout  # what links it checks that

    def finalize(self):
        self._raise_if_finalized()
        self._finalize_dynamic_globals()
        self._finalized = True

    def own_module(self):
        """The module of this helper alone, to be linked in."""
        return super()._get_module_for_linking()

    def _get_module_for_linking(self):
        """For a library of numba's own, which links what it calls and no more."""
        whole = self.own_module().clone()
        for library in _reached(self._linking_libraries):
            whole.link_in(_module_of(library), preserve=True)
        return whole


class _Whole(JITCodeLibrary):
    """Code of an entry, with that of every helper that it reaches.

    Nobody else calls those: LLVM may drop arguments that they do not use.
    """

    def _optimize_final_module(self):
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage.name == "linkonce_odr":
                function.linkage = "internal"
        passes, builder = self._codegen._module_pass_manager()
        passes.run(self._final_module, builder)

    def finalize(self):
        self._linking_libraries, direct = [], self._linking_libraries
        for library in _reached(direct):
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(_module_of(library), preserve=True)
        super().finalize()


def _module_of(library):
    return library.own_module() if isinstance(library, _Part) else library._get_module_for_linking()


def _reached(libraries):
    """All libraries that these need, themselves included, each once."""
    found, left = {}, list(libraries)
    while left:
        library = left.pop(0)
        if library not in found:
            found[library] = True
            if isinstance(library, _Part):
                left += library._linking_libraries
    return list(found)


@contextmanager
def _replaced(obj: object, **attributes: object):
    """Other values for these attributes of `obj` meanwhile."""
    own = vars(obj)
    usual = {name: own[name] for name in attributes if name in own}
    own.update(attributes)
    try:
        yield
    finally:
        for name in attributes:
            del own[name]
        own.update(usual)


_sizes: dict[str, int] = {}  # of LLVM types; numba has LLVM read a module for each variable's
_known: dict[tuple, Signature] = {}  # numba tries dozens of rules for each operator


def _remembered(function: Callable, results: dict, key: Callable) -> Callable:
    """`function`, which is called once for all arguments of a key; the key None is not kept."""
    if hasattr(function, "__wrapped__"):  # a helper that is compiled while another one is
        return function

    @wraps(function)
    def looked_up(*args):
        named = key(*args)
        if named is None:
            return function(*args)
        if named not in results:
            results[named] = function(*args)
        return results[named]

    return looked_up


def _of_whole_numbers(func, args, kws):
    """The key of an operator on whole numbers; None for other calls."""
    whole = all(isinstance(kind, types.Integer | types.Boolean) for kind in args)
    return (func, args) if whole and not kws and isinstance(func, types.Function) else None


def _frugal(typing):
    """Operators on whole numbers are looked up once."""
    resolve = _remembered(typing.resolve_function_type, _known, _of_whole_numbers)
    return _replaced(typing, resolve_function_type=resolve)


def _widened(kind: types.Type) -> types.Type:
    kind = types.unliteral(kind)
    return types.int64 if isinstance(kind, types.Integer) else kind


class Helper(CPUDispatcher):
    """A function for compiled callers; called from Python it runs as plain Python.

    A dispatcher compiled without wrappers would crash the interpreter when Python calls it.  All
    whole numbers are passed as int64, so that it is compiled once and not for every mix of widths.
    """

    def get_call_template(self, args, kws):
        wide = {name: _widened(kind) for name, kind in kws.items()}
        return super().get_call_template(tuple(map(_widened, args)), wide)

    def compile(self, sig):
        context = self.targetctx
        instead = {
            "get_executable": lambda library, fndesc, env: [].append,  # a key, never called
            "get_abi_sizeof": _remembered(context.get_abi_sizeof, _sizes, str),
        }
        with (
            one_at_a_time,
            _replaced(context, **instead),
            _replaced(context.codegen(), _library_class=_Part),
            _frugal(self.typingctx),
        ):
            return super().compile(sig)

    def __call__(self, *args):
        return self.py_func(*args)


def _helper(func: Callable, forceinline: bool) -> Callable:
    options = {**_HELPER, "forceinline": forceinline}
    return Helper(py_func=func, targetoptions=options, pipeline_class=_Compiler) if JIT else func


def inlined(func: Callable) -> Callable:
    """Compile `func` into each of its compiled callers (hot paths)."""
    return _helper(func, True)


def outlined(func: Callable) -> Callable:
    """Compile `func` once and call it (rare paths: keeps the engine small to compile)."""
    return _helper(func, False)


class _Chosen(Helper):
    """Stands for one of two helpers: which one the tables of an argument say."""

    def __init__(self, func: Callable, which: Callable[[tuple], Helper]):
        super().__init__(py_func=func, targetoptions=dict(_HELPER))
        self.which = which

    def get_call_template(self, args, kws):
        return self.which(args).get_call_template(args, kws)

    def get_overload(self, sig):
        return self.which(normalize_signature(sig)[0]).get_overload(sig)


def by_table(name: str, without: Callable, with_it: Callable, argument: int = 0) -> Callable:
    """One function for callers; `with_it` where the tables it is given have one of this name.

    `argument`: which argument the tables are: 0 is usually the state, 1 a plugin's own.  Tables of
    other names are of another type: which function is meant is known while compiling, and the other
    is not compiled at all.
    """

    def chosen(*args):
        return (with_it if name in args[argument]._fields else without)(*args)

    def which(kinds):
        return with_it if name in kinds[argument].fields else without

    return _Chosen(chosen, which) if JIT else chosen


SLAB_TABLE = "array"  # only the state of an engine on SLAB has this table


def by_allocator(slub: Callable, slab: Callable) -> Callable:
    """One function for callers, `slub` or `slab` for the compiler; both take the state first."""
    return by_table(SLAB_TABLE, slub, slab)


class _Entry(CPUDispatcher):
    """A function that Python calls, made of helpers."""

    def compile(self, sig):
        with (
            one_at_a_time,
            _replaced(self.targetctx.codegen(), _library_class=_Whole),
            _frugal(self.typingctx),
        ):
            entered = super().compile(sig)
        _give_environments(self.overloads[tuple(normalize_signature(sig)[0])])
        return entered


def _give_environments(compiled) -> None:
    """Let code of helpers find its environment, which no helper was told since none is executable.

    Without, what uses one (``print``) returns an error and keeps the interpreter's lock.
    """
    for environment in compiled._find_referenced_environments():
        compiled.library.codegen.set_env(environment.env_name, environment)


def entry(func: Callable) -> Dispatcher | Callable:
    """Compile `func` with the wrapper that lets Python call it."""
    options = {**_COMMON, "no_cfunc_wrapper": True}
    return _Entry(py_func=func, targetoptions=options) if JIT else func

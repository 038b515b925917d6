"""Every TensorRT name and keyword that a source file uses, found in its syntax tree and held against the real bindings.

Types flow from what the file says: `trt` (also `self._trt`) is the module, `trt.Builder(...)` makes a Builder, the bindings' own docstrings say what
a method returns and a property gives, and a parameter annotated `trt.IBuilderConfig` is one. What flows is checked at every dot and every call;
a name that only TensorRT has, on something of unknown type, is a problem too: nothing escapes unseen.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from bindings import all_members, named, property_type, signatures

MODULE = "trt"


@dataclass(frozen=True)
class Class:
    """A class of TensorRT, or one derived from it in the file."""

    of: type


@dataclass(frozen=True)
class Instance:
    of: type


@dataclass(frozen=True)
class Method:
    of: type
    name: str
    bound: bool = True


@dataclass(frozen=True)
class Many:
    """A sequence of instances."""

    of: Instance


Type = Any  # one of the above, MODULE, an ast.ClassDef for `self`, or None where it is none of TensorRT's


class Uses(ast.NodeVisitor):
    """`used` are "Class.member(keyword)" texts, `problems` one line each."""

    def __init__(self, trt: ModuleType, source: str, where: str) -> None:
        self.trt, self.where = trt, where
        self.used: set[str] = set()
        self.problems: list[str] = []
        self._tree = ast.parse(source)
        self._own = {name.arg for node in ast.walk(self._tree) if isinstance(node, ast.arguments) for name in node.args}
        self._own |= {node.name for node in ast.walk(self._tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        self._own |= {node.target.id for node in ast.walk(self._tree) if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
        self._unique = {name for name in all_members(trt) if "_" in name} - self._own
        self._optional = {
            node.args[1].value
            for node in ast.walk(self._tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("hasattr", "getattr")
            and isinstance(node.args[1], ast.Constant)
        }
        """Names that the file asks for before it uses them."""
        self._returns: dict[str, Type] = {}
        self._attributes: dict[str, dict[str, Type]] = {}
        self._scopes: list[dict[str, Type]] = [{}]
        self._class: list[ast.ClassDef] = []
        self._function: list[str] = []
        for final in (False, True):  # first to learn what attributes and functions are, then to check
            self._final = final
            self.visit(self._tree)

    # ---- what things are

    def type_of(self, node: ast.AST | None) -> Type:
        """The type of an expression; visits all of it."""
        if node is None:
            return None
        method = getattr(self, f"_type_{type(node).__name__}", None)
        if method is not None:
            return method(node)
        self.generic_visit(node)
        return None

    def _type_Name(self, node: ast.Name) -> Type:
        for scope in reversed(self._scopes):
            if node.id in scope:
                return scope[node.id]
        return MODULE if node.id == MODULE else None

    def _type_Attribute(self, node: ast.Attribute) -> Type:
        base, name = self.type_of(node.value), node.attr
        if base == MODULE:
            return self._of_module(node)
        if isinstance(base, ast.ClassDef):
            if name == f"_{MODULE}":
                return MODULE
            return self._attributes.get(base.name, {}).get(name)
        if isinstance(base, (Class, Instance)):
            return self._of_class(node, base)
        if name == f"_{MODULE}":
            return MODULE
        if name in self._unique:
            self._problem(node, f"{name} is used on something of unknown type; annotate it")
        return None

    def _of_module(self, node: ast.Attribute) -> Type:
        if not self._there(node, self.trt, node.attr, MODULE):
            return None
        value = getattr(self.trt, node.attr)
        return Class(value) if isinstance(value, type) else None

    def _of_class(self, node: ast.Attribute, base: Class | Instance) -> Type:
        owner, name = base.of, node.attr
        if not self._there(node, owner, name, owner.__name__):
            return None
        value = getattr(owner, name)
        if isinstance(node.ctx, ast.Store) and not (isinstance(value, property) and value.fset is not None):
            self._problem(node, f"{owner.__name__}.{name} cannot be set")
        if isinstance(value, type):
            return Class(value)
        if isinstance(value, property):
            kind = property_type(self.trt, value)
            return Instance(kind) if kind else None
        if callable(value):
            return Method(owner, name, isinstance(base, Instance))
        return Instance(type(value)) if getattr(self.trt, type(value).__name__, None) is type(value) else None

    def _there(self, node: ast.AST, owner: Any, name: str, shown: str) -> bool:
        self._use(f"{shown}.{name}")
        if hasattr(owner, name):
            return True
        if name not in self._optional:
            self._problem(node, f"{shown} has no {name}")
        return False

    def _type_Call(self, node: ast.Call) -> Type:
        function = self.type_of(node.func)
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            self.type_of(argument)
        if isinstance(function, Class):
            self._check_call(node, function.of, "__init__")
            return Instance(function.of)
        if isinstance(function, Method):
            return self._check_call(node, function.of, function.name, 0 if function.bound else 1)
        if isinstance(node.func, ast.Name):
            return self._returns.get(node.func.id)
        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name) and node.func.value.id == "self":
            return self._returns.get(node.func.attr)
        return None

    def _check_call(self, node: ast.Call, owner: type, name: str, skipped: int = 0) -> Type:
        shown = f"{owner.__name__}.{name}"
        keywords = {keyword.arg for keyword in node.keywords if keyword.arg is not None}
        starred = any(isinstance(argument, ast.Starred) for argument in node.args) or any(keyword.arg is None for keyword in node.keywords)
        count = sum(not isinstance(argument, ast.Starred) for argument in node.args) - skipped
        self._use(f"{shown}({', '.join(sorted(keywords))})")
        known = signatures(getattr(owner, name), name)
        if not known:
            self._problem(node, f"{shown} tells no arguments")
            return None
        fitting = [each for each in known if each.takes(count, keywords, starred)]
        if not fitting:
            takes = " or ".join(f"({', '.join(each.names)})" for each in known)
            self._problem(node, f"{shown} takes {takes}, not {count} positional and {sorted(keywords)}")
            return None
        text = fitting[0].returns
        if "[" in text:
            kind = named(self.trt, text[text.index("[") + 1 :].rstrip("]"))
            return Many(Instance(kind)) if kind else None
        kind = named(self.trt, text)
        return Instance(kind) if kind else None

    def _type_ListComp(self, node: ast.ListComp) -> Type:
        self._scopes.append({})
        for part in node.generators:
            self.visit(part)
        kind = self.type_of(node.elt)
        self._scopes.pop()
        return Many(kind) if isinstance(kind, Instance) else None

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._bind(node.target, self._item(self.type_of(node.iter)))
        for condition in node.ifs:
            self.type_of(condition)

    def _type_GeneratorExp(self, node: ast.GeneratorExp) -> Type:
        return self._type_ListComp(node)  # type: ignore[arg-type]

    _type_SetComp = _type_GeneratorExp

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._scopes.append({})
        for part in node.generators:
            self.visit(part)
        self.type_of(node.key)
        self.type_of(node.value)
        self._scopes.pop()

    def _type_Subscript(self, node: ast.Subscript) -> Type:
        self.type_of(node.slice)
        return self._item(self.type_of(node.value))

    def _type_IfExp(self, node: ast.IfExp) -> Type:
        self.type_of(node.test)
        kinds = [self.type_of(node.body), self.type_of(node.orelse)]
        return next((kind for kind in kinds if kind), None)

    def _type_BoolOp(self, node: ast.BoolOp) -> Type:
        kinds = [self.type_of(value) for value in node.values]
        return next((kind for kind in kinds if kind), None)

    def _type_NamedExpr(self, node: ast.NamedExpr) -> Type:
        kind = self.type_of(node.value)
        self._bind(node.target, kind)
        return kind

    def _type_Lambda(self, node: ast.Lambda) -> Type:
        self._scopes.append({argument.arg: None for argument in node.args.args})
        self.type_of(node.body)
        self._scopes.pop()
        return None

    @staticmethod
    def _item(kind: Type) -> Type:
        return kind.of if isinstance(kind, Many) else None

    # ---- statements

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.expr):
            return self.type_of(node)
        return super().visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        kind = self.type_of(node.value)
        for target in node.targets:
            self._bind(target, kind, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._bind(node.target, self._annotated(node.annotation) or self.type_of(node.value))

    def visit_For(self, node: ast.For) -> None:
        self._bind(node.target, self._item(self.type_of(node.iter)))
        for part in (*node.body, *node.orelse):
            self.visit(part)

    def visit_withitem(self, node: ast.withitem) -> None:
        kind = self.type_of(node.context_expr)
        if node.optional_vars is not None:
            self._bind(node.optional_vars, kind)

    def _bind(self, target: ast.AST, kind: Type, value: ast.AST | None = None) -> None:
        if isinstance(target, ast.Name):
            self._scopes[-1][target.id] = kind
        elif isinstance(target, ast.Attribute):
            base = self.type_of(target.value)
            if isinstance(base, ast.ClassDef):
                held = self._attributes.setdefault(base.name, {})
                held[target.attr] = kind or held.get(target.attr)
            else:
                self.type_of(target)
        elif isinstance(target, (ast.Tuple, ast.List)):
            values = value.elts if isinstance(value, (ast.Tuple, ast.List)) else []
            for i, part in enumerate(target.elts):
                self._bind(part, self.type_of(values[i]) if i < len(values) else None)
        elif isinstance(target, ast.Subscript) and isinstance(kind, Instance):
            self.type_of(target.slice)
            self._bind(target.value, Many(kind))
        else:
            self.type_of(target)

    def _annotated(self, annotation: ast.AST | None) -> Type:
        """`trt.X`, also inside a union or a string."""
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.parse(annotation.value, mode="eval").body
        for node in ast.walk(annotation) if annotation is not None else ():
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == MODULE:
                kind = self._of_module(node)
                return Instance(kind.of) if isinstance(kind, Class) else None
        return None

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        kind = self._annotated(node.returns)
        if kind is not None:
            self._returns[node.name] = kind
        scope: dict[str, Type] = {}
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        for argument in arguments:
            scope[argument.arg] = MODULE if argument.arg == MODULE else self._annotated(argument.annotation)
        static = any(isinstance(each, ast.Name) and each.id == "staticmethod" for each in node.decorator_list)
        if self._class and not static and arguments and arguments[0].arg == "self":
            scope["self"] = self._class[-1]
        self._scopes.append(scope)
        self._function.append(node.name)
        for part in node.body:
            self.visit(part)
        self._function.pop()
        self._scopes.pop()

    def visit_Return(self, node: ast.Return) -> None:
        kind = self.type_of(node.value)
        if kind is not None and kind != MODULE and self._function:
            self._returns.setdefault(self._function[-1], kind)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._scopes[-1][alias.asname or alias.name.split(".")[0]] = MODULE if alias.name == "tensorrt" else None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self._scopes[-1][alias.asname or alias.name] = None

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        bases = [kind for kind in map(self.type_of, node.bases) if isinstance(kind, Class)]
        self._class.append(node)
        for part in node.body:
            if bases and isinstance(part, ast.FunctionDef):
                self._check_override(part, bases[0].of)
            self.visit(part)
        self._class.pop()
        if bases:
            made = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
            calls = [each for part in made for each in ast.walk(part) if isinstance(each, ast.Attribute) and each.attr == "__init__"]
            if made and not calls:
                self._problem(node, f"{node.name} does not call {bases[0].of.__name__}.__init__")

    def _check_override(self, node: ast.FunctionDef, owner: type) -> None:
        if node.name.startswith("_") or not hasattr(owner, node.name):
            return
        self._use(f"{owner.__name__}.{node.name} overridden")
        names = tuple(argument.arg for argument in node.args.args[1:])
        known = signatures(getattr(owner, node.name), node.name)
        if names not in [each.names for each in known]:
            self._problem(node, f"{owner.__name__}.{node.name} is called with {[each.names for each in known]}, not {names}")

    # ---- what is told

    def _use(self, text: str) -> None:
        if self._final:
            self.used.add(text)

    def _problem(self, node: ast.AST, text: str) -> None:
        if self._final:
            self.problems.append(f"{self.where}:{getattr(node, 'lineno', 0)}: {text}")

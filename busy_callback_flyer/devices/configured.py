"""A Device whose options are plain attributes, keyword arguments and part of its configuration."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from ophyd import Device

from ..channels import private_names
from ..engine.options import Option, plain

if TYPE_CHECKING:
    from typing_extensions import Self


class DeviceArguments(TypedDict, total=False):
    """Keyword arguments of every ophyd Device."""

    kind: Any
    read_attrs: Any
    configuration_attrs: Any
    parent: Any
    child_name_separator: str
    connection_timeout: Any
    labels: Any


class Configured(Device):
    """Keeps options; a subclass says which, and how they are checked.

    Parameters
    ----------
    prefix : str
        Put before the components' PV names.
    name : str
    **kwargs
        Options, and keyword arguments of every Device.

    Attributes
    ----------
    OPTIONS : dict of str to Option
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {}

    def __init__(self, prefix: str = "", *, name: str, **kwargs: Any) -> None:
        for option in self.OPTIONS.values():
            setattr(self, option.attribute, kwargs.pop(option.name, option.default))
        self.check_options()
        self._configured_at = time.time()
        super().__init__(prefix, name=name, **kwargs)

    def __copy__(self) -> Self:
        """Another one like it, and no component of its parent.

        ophyd's own gives the new one `read_attrs` and `configuration_attrs`, in an order of chance: components of
        components may become omitted by that.
        """
        arguments = private_names.arguments(self)
        for told_by_kinds in ("read_attrs", "configuration_attrs", "parent"):
            arguments.pop(told_by_kinds, None)
        copied = type(self)(**arguments)
        private_names.copy_kinds(self, copied)
        return copied

    @property
    def options(self) -> dict[str, Any]:
        """The options as they are set now, by name."""
        return {option.name: plain(getattr(self, option.attribute)) for option in self.OPTIONS.values()}

    def check_options(self) -> None:
        """Refuse options that nothing can be done with.

        Raises
        ------
        ValueError
            It names the option.
        """
        for name, value in self.options.items():
            self.OPTIONS[name].check(value)

    def read_configuration(self) -> dict[str, Any]:
        """The components' own, and the options that are set."""
        configuration = dict(super().read_configuration())
        for key, value in self.settings().items():
            configuration.setdefault(key, {"value": value, "timestamp": self._configured_at})
        return configuration

    def describe_configuration(self) -> dict[str, Any]:
        """Describe what `read_configuration` reads."""
        description = dict(super().describe_configuration())
        for key, value in self.settings().items():
            dtype = "string" if isinstance(value, str) else "integer" if isinstance(value, int) else "number"
            description.setdefault(key, {"source": type(self).__name__, "dtype": dtype, "shape": []})
        return description

    def configure(self, d: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Set options by name, and the components' own configuration.

        Parameters
        ----------
        d : dict
            New values, by name.

        Returns
        -------
        old, new : dict
            `read_configuration` before and after.

        Raises
        ------
        ValueError
            An option that nothing can be done with; none is changed then.
        """
        unknown = d.keys() - {*self.OPTIONS, *self.configuration_attrs}
        if unknown:
            raise ValueError(f"{self.name} has nothing to configure that is named {', '.join(sorted(unknown))}")
        before = self.options
        old = self.read_configuration()
        try:
            self._set({name: value for name, value in d.items() if name in self.OPTIONS})
            self.check_options()
        except Exception:
            self._set(before)
            raise
        super().configure({name: value for name, value in d.items() if name not in self.OPTIONS})
        return old, self.read_configuration()

    def settings(self) -> dict[str, Any]:
        """What stands in the configuration beside the components, by key."""
        return {f"{self.name}_{name}": value for name, value in self.options.items() if value is not None}

    def _repr_info(self) -> Iterator[tuple[str, Any]]:
        """What `repr` shows and `copy.copy` makes another one from: the options, too."""
        yield from super()._repr_info()
        for name, value in self.options.items():
            if value != self.OPTIONS[name].default:
                yield name, value

    def _set(self, options: Mapping[str, Any]) -> None:
        for name, value in options.items():
            setattr(self, self.OPTIONS[name].attribute, value)
        self._configured_at = time.time()

import json

from componentize_py_types import Err
from wit_world.exports import Create as CreateBase, Lifecycle as LifecycleBase
from wit_world.imports import types
from wit_world.imports.types import Decision, Diagnostic, Severity, Verdict

ALLOW: list[str] = []


class Lifecycle(LifecycleBase):
    def init(self, settings: str) -> None:
        given = json.loads(settings)
        unknown = sorted(set(given) - {"allow"})
        if unknown:
            message = f"there is no setting `{unknown[0]}`"
            raise Err([Diagnostic("SETTINGS", Severity.HIGH, message, None, None)])
        ALLOW[:] = given.get("allow", [])


class Create(CreateBase):
    def on_create(self, request, facts, caller) -> Verdict:
        image = request.image.reference if request.image else ""
        if request.uid != 0 or any(image.startswith(allowed) for allowed in ALLOW):
            return Verdict(Decision.ALLOW, [], [types.Restriction_NoNewPrivileges()], [])
        found = Diagnostic(
            code="ROOT001",
            severity=Severity.HIGH,
            message="the container runs as root",
            path="/uid",
            help="run it as somebody: --user 1000:1000",
        )
        return Verdict(Decision.DENY, [found], [], [])

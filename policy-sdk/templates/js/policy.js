// Called once with `@NAME@.toml`: says what `settings` is to the other functions. A misspelt setting is an error.
function configure(settings) {
    for (const name of Object.keys(settings)) {
        if (name !== "allow") {
            throw new Error(`there is no setting \`${name}\``);
        }
    }
    return { allow: settings.allow ?? [] };
}

// Asked before a container is started. Fields are those of the interface, with underscores: `container.no_new_privileges`.
function create({ container, caller, settings }) {
    const image = container.image?.reference ?? "";
    if (container.uid !== 0 || settings.allow.some((allowed) => image.startsWith(allowed))) {
        return allow("no-new-privileges");
    }
    return deny({
        code: "ROOT001",
        severity: "high",
        message: "the container runs as root",
        path: "/uid",
        help: "run it as somebody: --user 1000:1000",
    });
}

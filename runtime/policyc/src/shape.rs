//! What a component may be made of. Fuel counts what its code does; it does not count what the engine does between
//! its parts: texts converted from one to the other, tables of resources, instances made by the thousand. No policy
//! needs any of that, so a component that has it is refused before it is compiled.

use wasmparser::{
    CanonicalFunction, ComponentAlias, ComponentExternalKind as Kind, ComponentOuterAliasKind, Encoding, Instance,
    Parser, Payload,
};

/// Bytes of all modules, each counted as often as it is instantiated.
const INSTANTIATED_BYTES: usize = 64 << 20;
/// Functions, globals, tables and imports of all instances: each takes some bytes on this side.
const ITEMS: usize = 1 << 20;
/// Instances of components, which only give names to what there is.
const COMPONENT_INSTANCES: usize = 1 << 10;

/// Where a function of a component, or an instance that has some, comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Import,
    Inside,
}

/// What a module weighs where it is instantiated.
#[derive(Clone, Copy, Default)]
struct Weight {
    bytes: usize,
    items: usize,
}

/// A module or a component that is being read.
enum Open {
    Module,
    Component,
}

/// The outermost component, as far as it has been read.
#[derive(Default)]
struct Outermost {
    modules: Vec<Weight>,
    functions: Vec<From>,
    instances: Vec<From>,
    total: Weight,
    components: usize,
}

/// # Errors
/// In words, when it is made of what no policy needs.
pub(crate) fn check(component: &[u8]) -> Result<(), String> {
    let invalid = |e: &dyn std::fmt::Display| format!("is not valid: {e}");
    let mut outermost = Outermost::default();
    let mut open: Vec<Open> = Vec::new();
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(|e| invalid(&e))?;
        match (&payload, open.as_slice()) {
            (Payload::Version { encoding, .. }, _) => open.push(match encoding {
                Encoding::Module => Open::Module,
                Encoding::Component => Open::Component,
            }),
            (Payload::End(_), _) => drop(open.pop()),
            (_, [Open::Component]) => outermost.take(&payload).map_err(|e| invalid(&e))??,
            (_, [.., Open::Module]) => outermost.weigh(&payload),
            (_, _) => inner(&payload).map_err(|e| invalid(&e))??,
        }
    }
    Ok(())
}

type Read<T> = Result<T, wasmparser::BinaryReaderError>;

impl Outermost {
    fn take(&mut self, payload: &Payload<'_>) -> Read<Result<(), String>> {
        match payload {
            Payload::ModuleSection { unchecked_range, .. } => {
                self.modules.push(Weight { bytes: unchecked_range.len(), items: 0 });
            }
            Payload::InstanceSection(section) => {
                for instance in section.clone() {
                    if let Err(why) = self.instantiate(&instance?) {
                        return Ok(Err(why));
                    }
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section.clone() {
                    instance?;
                    self.components += 1;
                    self.instances.push(From::Inside);
                }
                if self.components > COMPONENT_INSTANCES {
                    return Ok(Err(format!("instantiates more than {COMPONENT_INSTANCES} components")));
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section.clone() {
                    self.add(import?.ty.kind(), From::Import);
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section.clone() {
                    let export = export?;
                    let from = self.origin(export.kind, export.index);
                    self.add(export.kind, from);
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section.clone() {
                    if let ComponentAlias::InstanceExport { kind, instance_index, .. } = alias? {
                        let from = self.origin(Kind::Instance, instance_index);
                        self.add(kind, from);
                    }
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section.clone() {
                    if let Err(why) = self.canonical(&function?) {
                        return Ok(Err(why));
                    }
                }
            }
            Payload::ComponentStartSection { .. } => return Ok(Err("has a start of its own".to_owned())),
            _ => {}
        }
        Ok(Ok(()))
    }

    fn add(&mut self, kind: Kind, from: From) {
        match kind {
            Kind::Func => self.functions.push(from),
            Kind::Instance => self.instances.push(from),
            // Whoever instantiates one from elsewhere is refused by its weight.
            Kind::Module => self.modules.push(Weight { bytes: INSTANTIATED_BYTES + 1, items: 0 }),
            Kind::Component | Kind::Type | Kind::Value => {}
        }
    }

    fn origin(&self, kind: Kind, index: u32) -> From {
        let list = match kind {
            Kind::Func => &self.functions,
            Kind::Instance => &self.instances,
            Kind::Module | Kind::Component | Kind::Type | Kind::Value => return From::Inside,
        };
        usize::try_from(index).ok().and_then(|index| list.get(index)).copied().unwrap_or(From::Inside)
    }

    fn instantiate(&mut self, instance: &Instance<'_>) -> Result<(), String> {
        let Instance::Instantiate { module_index, .. } = instance else { return Ok(()) };
        let weight = usize::try_from(*module_index).ok().and_then(|index| self.modules.get(index));
        let weight = weight.copied().unwrap_or_default();
        self.total.bytes = self.total.bytes.saturating_add(weight.bytes);
        self.total.items = self.total.items.saturating_add(weight.items);
        if self.total.bytes > INSTANTIATED_BYTES {
            return Err(format!("instantiates more than {INSTANTIATED_BYTES} bytes of modules"));
        }
        if self.total.items > ITEMS {
            return Err(format!("instantiates more than {ITEMS} functions, globals and imports"));
        }
        Ok(())
    }

    fn canonical(&self, function: &CanonicalFunction) -> Result<(), String> {
        match function {
            CanonicalFunction::Lift { .. } => Ok(()),
            CanonicalFunction::Lower { func_index, .. } => match self.origin(Kind::Func, *func_index) {
                From::Import => Ok(()),
                From::Inside => Err(COMPOSED.to_owned()),
            },
            CanonicalFunction::ResourceNew { .. }
            | CanonicalFunction::ResourceDrop { .. }
            | CanonicalFunction::ResourceRep { .. } => {
                Err("makes or drops resources, and nothing that policies are asked has any".to_owned())
            }
            _ => Err("uses what only concurrent components need".to_owned()),
        }
    }

    /// Something of the module that was met last.
    fn weigh(&mut self, payload: &Payload<'_>) {
        let items = match payload {
            Payload::ImportSection(section) => section.count(),
            Payload::FunctionSection(section) => section.count(),
            Payload::TableSection(section) => section.count(),
            Payload::GlobalSection(section) => section.count(),
            Payload::ElementSection(section) => section.count(),
            Payload::DataSection(section) => section.count(),
            _ => return,
        };
        if let Some(module) = self.modules.last_mut() {
            module.items = module.items.saturating_add(usize::try_from(items).unwrap_or(usize::MAX));
        }
    }
}

const COMPOSED: &str = "is put together of components that call each other: link them into one";

/// A component inside may give names and types to what it is handed, as compilers have it do, and nothing else.
fn inner(payload: &Payload<'_>) -> Read<Result<(), String>> {
    let refused = match payload {
        Payload::ComponentAliasSection(section) => {
            let mut code = false;
            for alias in section.clone() {
                code |= matches!(
                    alias?,
                    ComponentAlias::Outer {
                        kind: ComponentOuterAliasKind::CoreModule | ComponentOuterAliasKind::Component,
                        ..
                    }
                );
            }
            code
        }
        Payload::ModuleSection { .. }
        | Payload::InstanceSection(_)
        | Payload::ComponentSection { .. }
        | Payload::ComponentInstanceSection(_)
        | Payload::ComponentCanonicalSection(_)
        | Payload::ComponentStartSection { .. } => true,
        _ => false,
    };
    Ok(if refused { Err(COMPOSED.to_owned()) } else { Ok(()) })
}

#[cfg(test)]
mod tests {
    use super::check;

    fn refused(wat: &str) -> String {
        check(&wat::parse_str(wat).unwrap()).unwrap_err()
    }

    #[test]
    fn what_compilers_make_passes() {
        let wat = r#"(component
            (import "host" (instance $host (export "f" (func (param "x" string)))))
            (alias export $host "f" (func $f))
            (core module $libc (memory (export "memory") 1)
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable))
            (core instance $libc (instantiate $libc))
            (core func $lowered (canon lower (func $f)
                (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
            (core module $m (import "" "f" (func (param i32 i32))) (func (export "g")))
            (core instance $i (instantiate $m (with "" (instance (export "f" (func $lowered))))))
            (func $g (canon lift (core func $i "g")))
            (component $named (import "g" (func $g)) (export "g" (func $g)))
            (instance $named (instantiate $named (with "g" (func $g))))
            (export "hook" (instance $named)))"#;
        check(&wat::parse_str(wat).unwrap()).unwrap();
    }

    #[test]
    fn resources_are_refused() {
        for builtin in ["resource.new", "resource.drop", "resource.rep"] {
            let wat = format!("(component (type $t (resource (rep i32))) (core func (canon {builtin} $t)))");
            assert!(refused(&wat).contains("resources"));
        }
    }

    /// Two parts that hand each other texts: the engine converts them, and no fuel counts that.
    #[test]
    fn parts_that_call_each_other_are_refused() {
        let wat = r#"(component
            (core module $m (memory (export "memory") 1)
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable)
                (func (export "f") (param i32 i32)))
            (core instance $i (instantiate $m))
            (func $f (param "x" string) (canon lift (core func $i "f")
                (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
            (core func (canon lower (func $f) string-encoding=utf16
                (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))"#;
        assert!(refused(wat).contains("call each other"));
        let inside = "(component (component (core module)))";
        assert!(refused(inside).contains("call each other"));
    }

    #[test]
    fn many_instances_of_large_modules_are_refused() {
        let data = "x".repeat(1 << 20);
        let instances = "(core instance (instantiate $m))".repeat(80);
        let wat = format!("(component (core module $m (memory 16) (data (i32.const 0) \"{data}\")) {instances})");
        assert!(refused(&wat).contains("bytes of modules"));
        let globals = "(global i32 (i32.const 0))".repeat(20_000);
        let wat = format!("(component (core module $m {globals}) {instances})");
        assert!(refused(&wat).contains("globals"));
    }
}

//! Evaluates the rules of the CustomResourceDefinition (CEL), with the functions that Kubernetes adds to the language.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use cel::{Context, Env, Program, Value as CelValue, extractors::This};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, ValidationRule,
};
use serde_json::Value;

use super::{mistake::Mistake, path::FieldPath};

/// The rules, each compiled once.
pub struct Rules {
    env: Arc<Env>,
    programs: RefCell<HashMap<String, Arc<Program>>>,
}

/// A rule cannot be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RuleError(String);

impl Rules {
    /// No rules yet; each is compiled when it is first met.
    pub fn new() -> Self {
        Self { env: Arc::new(Env::stdlib()), programs: RefCell::default() }
    }

    /// The rules of a schema that a value breaks. A rule that cannot be evaluated is told as advice.
    pub fn broken(
        &self,
        schema: &JSONSchemaProps,
        value: &Value,
        path: &FieldPath,
    ) -> Vec<Mistake> {
        let rules = schema.x_kubernetes_validations.iter().flatten();
        let rules = rules.filter(|rule| applies_to_new_objects(rule));
        let mistake = |rule: &ValidationRule| match self.holds(&rule.rule, value) {
            Ok(true) => None,
            Ok(false) => Some(self.mistake(rule, value, path)),
            Err(error) => {
                let what = format!("a rule could not be checked here: {} ({error})", rule.rule);
                Some(Mistake::advice(path.clone(), what, "The API server checks it"))
            }
        };
        rules.filter_map(mistake).collect()
    }

    fn mistake(&self, rule: &ValidationRule, value: &Value, path: &FieldPath) -> Mistake {
        let computed = rule.message_expression.as_deref().and_then(|expression| {
            match self.evaluate(expression, value) {
                Ok(CelValue::String(text)) => Some((*text).clone()),
                _ => None,
            }
        });
        let message = computed.or_else(|| rule.message.clone());
        let message = message.unwrap_or_else(|| format!("failed rule: {}", rule.rule));
        let path = match rule.field_path.as_deref() {
            Some(fields) => fields
                .split('.')
                .filter(|it| !it.is_empty())
                .fold(path.clone(), |path, field| path.field(field)),
            None => path.clone(),
        };
        let what = match value {
            Value::Object(_) | Value::Array(_) => message,
            scalar => format!("Invalid value: {scalar}: {message}"),
        };
        Mistake::error(path, what, "")
    }

    fn holds(&self, rule: &str, value: &Value) -> Result<bool, RuleError> {
        match self.evaluate(rule, value)? {
            CelValue::Bool(holds) => Ok(holds),
            other => Err(RuleError(format!("it is {other:?}"))),
        }
    }

    fn evaluate(&self, expression: &str, value: &Value) -> Result<CelValue, RuleError> {
        let program = self.program(expression)?;
        let mut context = Context::with_env(Arc::clone(&self.env));
        add_functions(&mut context).map_err(|error| RuleError(error.to_string()))?;
        context.add_variable_from_value("self", cel_value(value));
        if expression.contains("oldSelf") {
            let none = self.program("optional.none()")?.execute(&context);
            let none = none.map_err(|error| RuleError(error.to_string()))?;
            context.add_variable_from_value("oldSelf", none);
        }
        program.execute(&context).map_err(|error| RuleError(error.to_string()))
    }

    fn program(&self, expression: &str) -> Result<Arc<Program>, RuleError> {
        if let Some(program) = self.programs.borrow().get(expression) {
            return Ok(Arc::clone(program));
        }
        let program = self.env.compile(expression);
        let program = Arc::new(program.map_err(|error| RuleError(error.to_string()))?);
        self.programs.borrow_mut().insert(expression.to_owned(), Arc::clone(&program));
        Ok(program)
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a rule looks at an object alone, and not at a change of it.
fn applies_to_new_objects(rule: &ValidationRule) -> bool {
    rule.optional_old_self == Some(true) || !rule.rule.contains("oldSelf")
}

/// Kubernetes' library for IP addresses. Here an address stays a text.
fn add_functions(context: &mut Context<'_, '_>) -> Result<(), cel::DeclarationError> {
    context.add_function("isIP", |text: Arc<String>| address(&text).is_some())?;
    context.add_function("ip", |text: Arc<String>| text)?;
    context.add_function("ip.isCanonical", |text: Arc<String>| {
        address(&text).is_some_and(|address| address.to_string() == *text)
    })?;
    context.add_function("family", |This(text): This<Arc<String>>| {
        address(&text).map_or(0, |address| if address.is_ipv4() { 4_i64 } else { 6 })
    })?;
    context.add_function("isGlobalUnicast", |This(text): This<Arc<String>>| {
        address(&text).is_some_and(is_global_unicast)
    })
}

/// An address as Kubernetes reads it: without a zone, and no IPv4 address written as IPv6.
fn address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    (!mapped).then_some(address)
}

fn is_global_unicast(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !address.is_unspecified()
        && !address.is_loopback()
        && !address.is_multicast()
        && !is_link_local
        && address != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// A value of the language. Its numbers are signed, as Kubernetes passes them.
fn cel_value(value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(value) => CelValue::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(number) => CelValue::Int(number),
            None => CelValue::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => CelValue::List(Arc::new(items.iter().map(cel_value).collect())),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), cel_value(value)));
            fields.collect::<HashMap<String, CelValue>>().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_kubernetes_reads_them() {
        for (text, is_one) in [
            ("192.0.2.1", true),
            ("2001:db8::1", true),
            ("192.0.2.01", false),
            ("fe80::1%eth0", false),
            ("::ffff:192.0.2.1", false),
            ("", false),
        ] {
            assert_eq!(address(text).is_some(), is_one, "{text}");
        }
    }

    #[test]
    fn a_rule_that_cannot_be_evaluated_is_told_and_refuses_nothing() {
        let rules = [ValidationRule { rule: "nope(self)".to_owned(), ..Default::default() }];
        let schema = JSONSchemaProps {
            x_kubernetes_validations: Some(rules.to_vec()),
            ..Default::default()
        };
        let told = Rules::new().broken(&schema, &Value::from(1), &FieldPath::default());
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].level, crate::lint::mistake::Level::Advice);
    }

    #[test]
    fn a_rule_about_changes_does_not_apply_to_a_file() {
        let rule = |rule: &str, optional| ValidationRule {
            rule: rule.to_owned(),
            optional_old_self: optional,
            ..Default::default()
        };
        assert!(!applies_to_new_objects(&rule("self == oldSelf", None)));
        assert!(applies_to_new_objects(&rule("oldSelf.hasValue() || self > 1", Some(true))));
    }
}

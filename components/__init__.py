"""What Pulumi converges: settings → plan → components, in the order of docs/architecture.md."""

"""Values: components, roles, plans; what the author of a method imports."""

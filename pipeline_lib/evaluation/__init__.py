"""A task's results: inference, data and metrics joined into values with roles and intervals; tables, no figures."""

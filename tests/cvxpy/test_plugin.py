"""The plugin of CVXPY, as the registry finds it."""

from argminlayer import _registry


def test_the_plugin_is_installed_and_works():
    found = _registry.load()
    assert "cvxpy" in [plugin.name for plugin in found.plugins]
    assert "cvxpy" not in found.failures

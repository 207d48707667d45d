"""A method as the config.yaml that ``python -m minboost.generate --config`` reads."""

from __future__ import annotations

from typing import Any

from ..methods import Method


def config_block(method: Method, options: dict[str, Any], remark: str) -> str:
    """The YAML text of ``method``, of where it acts, and of the model if it is not the demo's.

    Args:
        options: the settled options of the command that made the method: its model, its role, and
            for latent steering the directions file.
        remark: what to say at the top; each of its lines becomes a comment.
    """
    import yaml

    config: dict[str, Any] = {"method": method.name}
    if options["model"] != "demo":
        config["model"] = {"name": options["model"]}
        if options["revision"] is not None:
            config["model"]["revision"] = options["revision"]
    own = method.parameter_values()
    if method.name == "latent":
        own["direction"] = options["direction"]
        own["directions"] = str(options["directions"])
    config[method.name] = own
    if where := _where(method):
        config["instaboost"] = {**config.get("instaboost", {}), **where}
    if isinstance(method.heads, float):
        config["random_seed"] = method.head_seed
    if options["role"] != "system":
        config["generation"] = {"role": options["role"]}
    comment = "".join(f"# {line}\n" for line in remark.splitlines())
    # Characters beyond ASCII are escaped: what a terminal cannot show would not survive a copy.
    return comment + yaml.safe_dump(config, sort_keys=False)


def _where(method: Method) -> dict[str, Any]:
    """Layers, heads and span, where they are not what they are by default."""
    where: dict[str, Any] = {}
    if method.layers != "all":
        where["layers"] = method.layers if isinstance(method.layers, str) else list(method.layers)
    if method.layers == "middle":
        where["start_layer"] = method.start_layer
        where["num_middle_layers"] = method.num_middle_layers
    if isinstance(method.heads, (str, float)):
        if method.heads != "all":
            where["heads"] = method.heads
    else:
        where["heads"] = {
            layer: heads if isinstance(heads, str) else list(heads)
            for layer, heads in method.heads.items()
        }
    if method.span != "instruction":
        where["span"] = str(method.span)
    return where

"""Run the cases in PyTorch and keep what they end with.

``python -m tests.references.generate`` needs PyTorch. Everything is computed in float64
by autograd; optimizers are PyTorch's own but for NAdam and decoupled weight decay of SGD
and RMSprop, for which it has no such formula.
"""

from itertools import pairwise

import numpy as np
import torch
from torch.nn import functional as F

from tests.references import cases

ACTIVATIONS = {
    "tanh": torch.tanh,
    "logistic": torch.sigmoid,
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "softplus": F.softplus,
}


def outputs_of(parameters, options, X):
    """The raw outputs."""
    names, depth = options["activation"], len(parameters) // 2
    names = [names] * (depth - 1) if isinstance(names, str) else names
    for layer in range(depth):
        X = X @ parameters[layer] + parameters[depth + layer]
        if layer < depth - 1:
            X = ACTIVATIONS[names[layer]](X)
    return X


def pinball(prediction, y, q):
    """The quantile loss of each number."""
    return torch.maximum(q * (y - prediction), (q - 1) * (y - prediction))


def loss_of(options, Z, y):
    """The mean loss of a batch."""
    loss = options.get("loss", "log_loss")
    if loss == "log_loss":
        weight = options.get("class_weight")
        if weight is not None:
            weight = torch.tensor([weight[label] for label in sorted(weight)]).double()
        rows = F.cross_entropy(
            Z, y, reduction="none", label_smoothing=options.get("label_smoothing", 0)
        )
        if weight is None:
            return rows.mean()
        return (rows * weight[y]).sum() / weight[y].sum()
    if loss == "absolute_error":
        return F.l1_loss(Z, y)
    if loss == "huber":
        return F.huber_loss(Z, y, delta=options["huber_delta"])
    if loss == "gamma":  # half the deviance, summed over the outputs
        return (y / Z.exp() - 1 - torch.log(y / Z.exp())).sum(dim=1).mean()
    q = options["quantile"]
    if isinstance(q, float):
        return pinball(Z, y, q).mean()
    Z = torch.cumsum(torch.cat([Z[:, :1], F.softplus(Z[:, 1:])], dim=1), dim=1)
    return pinball(Z, y[:, None], torch.tensor(q, dtype=torch.float64)).mean()


class NAdam(torch.optim.Optimizer):
    """Dozat's, for a constant beta_1."""

    def __init__(self, groups, lr, betas, eps):
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps})
        self.t = 0

    def step(self):
        self.t += 1
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                s = self.state[p]
                m = s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * p.grad
                v = s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * p.grad**2
                ahead = b1 * m / (1 - b1 ** (self.t + 1))
                ahead = ahead + (1 - b1) * p.grad / (1 - b1**self.t)
                root = torch.sqrt(v / (1 - b2**self.t)) + group["eps"]
                p.data -= group["lr"] * ahead / root


def optimizer_of(options, weights, biases):
    """PyTorch's optimizer, and what decays weights beside it."""
    solver, rate = options["solver"], options["learning_rate_init"]
    betas = (options.get("beta_1", 0.9), options.get("beta_2", 0.999))
    eps, decay = options["epsilon"], options.get("weight_decay")
    if decay is None:
        decay = 0.01 if solver == "adamw" else 0.0
    groups = [{"params": weights, "weight_decay": decay}, {"params": biases}]
    if solver in ("adam", "adamw"):
        chosen = torch.optim.AdamW(groups, rate, betas, eps, weight_decay=0.0)
        return chosen, 0.0
    groups = [*weights, *biases]
    if solver == "rmsprop":
        return torch.optim.RMSprop(groups, rate, alpha=betas[1], eps=eps), decay
    if solver == "nadam":
        return NAdam(groups, rate, betas, eps), decay
    nesterov = options.get("nesterovs_momentum", True)
    return torch.optim.SGD(groups, rate, momentum=0.9, nesterov=nesterov), decay


def run(name):
    """(coefs and intercepts at the end, mean loss of each epoch)"""
    special = {**cases.CLASSIFIERS, **cases.REGRESSORS}[name]
    options = {**cases.COMMON, **special}
    X, y, coefs, intercepts = (
        [torch.tensor(a) for a in item] if isinstance(item, list) else torch.tensor(item)
        for item in cases.data(name)
    )
    frozen = options.get("frozen_layers", 0)
    parameters = [*coefs, *intercepts]
    weights, biases = coefs[frozen:], intercepts[frozen:]
    for p in (*weights, *biases):
        p.requires_grad_(True)
    optimizer, decay = optimizer_of(options, weights, biases)
    curve, size = [], options["batch_size"]
    class_weight = options.get("class_weight", {})
    for _ in range(options["max_iter"]):
        losses = []
        for start in range(0, len(X), size):
            rows = slice(start, start + size)
            total = sum(class_weight.get(int(label), 1.0) for label in y[rows].flatten())
            total = total if class_weight else len(y[rows])
            penalty = sum((W**2).sum() for W in weights) * options["alpha"] / 2 / total
            loss = loss_of(options, outputs_of(parameters, options, X[rows]), y[rows])
            loss = loss + penalty
            optimizer.zero_grad()
            loss.backward()
            if "max_grad_norm" in options:
                torch.nn.utils.clip_grad_norm_(
                    [*weights, *biases], options["max_grad_norm"]
                )
            with torch.no_grad():
                for W in weights:
                    W *= 1 - options["learning_rate_init"] * decay
            optimizer.step()
            losses.append(loss.item() * len(X[rows]))
        curve.append(sum(losses) / len(X))
    return [p.detach().numpy() for p in parameters], curve


def main():
    """Write the file."""
    kept = {}
    for name in (*cases.CLASSIFIERS, *cases.REGRESSORS):
        parameters, curve = run(name)
        units = [
            len(parameters[0]),
            *(len(b) for b in parameters[len(parameters) // 2 :]),
        ]
        assert units[1:-1] == list(cases.HIDDEN), list(pairwise(units))
        kept[name] = np.concatenate([*(p.ravel() for p in parameters), curve])
    np.savez_compressed(cases.FILE, **kept)
    print(f"{len(kept)} runs, {cases.FILE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

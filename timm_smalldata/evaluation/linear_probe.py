"""A linear classifier on features that stand still."""
from typing import Any, Callable, Optional

import numpy as np
import torch

from .knn import check_features


def linear_probe(
        train_features: torch.Tensor,
        train_labels: torch.Tensor,
        test_features: torch.Tensor,
        num_classes: int,
        C: Optional[float] = None,
) -> torch.Tensor:
    """Fit a logistic regression to features and apply it.

    Each dimension is brought to mean 0 and deviation 1 over the training images (a constant one to 0); the regression
    is scikit-learn's, multinomial, with an L2 penalty. Nothing is random. This is not the linear evaluation of papers,
    which train a layer by SGD on augmented crops.

    Args:
        train_features: Features (M, D) that are learned from.
        train_labels: Their classes (M,). One image per class is enough.
        test_features: Features (N, D) that are judged.
        num_classes: Number of classes.
        C: Inverse strength of the penalty; by default scikit-learn's, 1.

    Returns:
        Probabilities (N, num_classes) in float32, on the device of `test_features`; 0 for classes without a training
        image.

    Raises:
        ValueError: Shapes do not fit, there is no training image, a label is no class, a feature is not finite, or
            `C` is not positive.

    >>> train = torch.tensor([[0., 5.], [1., 5.], [8., 5.], [9., 5.]])
    >>> linear_probe(train, torch.tensor([0, 0, 2, 2]), torch.tensor([[2., 5.], [7., 5.]]), 3).argmax(1)
    tensor([0, 2])
    """
    check_features(train_features, train_labels, test_features, num_classes)
    return fit_linear_probe(train_features, train_labels, num_classes, C)(test_features)


def fit_linear_probe(
        train_features: torch.Tensor,
        train_labels: torch.Tensor,
        num_classes: int,
        C: Optional[float] = None,
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function from features (N, D) to probabilities (N, num_classes) that `linear_probe` applies."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    check_features(train_features, train_labels, train_features, num_classes)
    if C is not None and not C > 0:
        raise ValueError(f'C must be positive, got {C}.')
    features, labels = _array(train_features), train_labels.cpu().numpy()
    classes: Any = np.unique(labels)
    model: Any = make_pipeline(StandardScaler(), LogisticRegression(C=1.0 if C is None else C, max_iter=1000))
    if len(classes) > 1:  # scikit-learn refuses a single class
        model.fit(features, labels)

    def predict(test_features: torch.Tensor) -> torch.Tensor:
        probabilities = np.zeros((len(test_features), num_classes))
        if len(classes) == 1:
            probabilities[:, classes[0]] = 1.
        elif len(test_features):
            probabilities[:, classes] = model.predict_proba(_array(test_features))
        return torch.from_numpy(probabilities).float().to(test_features.device)

    return predict


def _array(features: torch.Tensor) -> np.ndarray:
    """Return features as float64 on the CPU; ValueError where one is not finite."""
    values = features.detach().cpu().double()
    if not values.isfinite().all():
        raise ValueError('A feature is not finite.')
    return values.numpy()

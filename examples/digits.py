"""
Image classification
====================

Handwritten digits of 8 x 8 pixels, with ReLU units, a softmax output and cross-entropy,
in the pipeline that one would write with scikit-learn's own ``MLPClassifier``. The loss
goes down epoch by epoch; the confusion matrix says which digits are mistaken for which.
"""

import sys
import warnings

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastbp import MLPClassifier

epochs = 5 if "--short" in sys.argv else 60
warnings.simplefilter("ignore", ConvergenceWarning)  # so many epochs are wanted

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=0.3, stratify=y, random_state=0
)
model = make_pipeline(
    StandardScaler(), MLPClassifier((100,), max_iter=epochs, random_state=0)
)
model.fit(X_train, y_train)
print(f"accuracy on {len(y_train)} training images {model.score(X_train, y_train):.3f}")
print(f"accuracy on {len(y_test)} other images     {model.score(X_test, y_test):.3f}")

# %%

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
left.semilogy(range(1, model[-1].n_iter_ + 1), model[-1].loss_curve_)
left.set(xlabel="epoch", ylabel="cross-entropy of the training images")
ConfusionMatrixDisplay.from_estimator(
    model, X_test, y_test, ax=right, colorbar=False, cmap="Blues"
)
right.set_title("test images")
figure.savefig("digits.png")
print("The picture is digits.png.")

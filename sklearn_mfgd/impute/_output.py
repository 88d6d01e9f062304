"""The container of results: what `set_output` asks for, beside `transform`, too."""

from sklearn.utils._set_output import ADAPTERS_MANAGER, _get_output_config


def in_container(imputer, values, X):
    """Return values, such as deviations, in the container that `transform` uses.

    The columns are those that the imputer keeps of X. Several tables, along the first
    axis of an array, become a list of containers. scikit-learn itself wraps the results
    of `transform` and `fit_transform` alone.
    """
    container = _get_output_config("transform", imputer)["dense"]
    if container == "default":
        return values
    if values.ndim == 3:
        return [in_container(imputer, table, X) for table in values]
    names = imputer.get_feature_names_out()[: values.shape[1]]
    adapter = ADAPTERS_MANAGER.adapters[container]
    return adapter.create_container(values, X, columns=names)

"""Loader of the Beijing multi-site air quality data set."""

from importlib import resources

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import validate_params

STATIONS = [
    *("Aotizhongxin", "Changping", "Dingling", "Dongsi", "Guanyuan", "Gucheng"),
    *("Huairou", "Nongzhanguan", "Shunyi", "Tiantan", "Wanliu", "Wanshouxigong"),
]

UNITS = dict.fromkeys(("PM2.5", "PM10", "SO2", "NO2", "CO", "O3"), "ug/m^3")
UNITS |= {"TEMP": "degC", "PRES": "hPa", "DEWP": "degC", "RAIN": "mm", "WSPM": "m/s"}

# data/beijing_air.npz encodes the measurements without loss. Row v of `levels` lists
# NaN, then the distinct values of variable v in ascending order. A measurement is
# encoded as its column number there, so 0 is missing. `steps` stores the differences of
# these numbers from hour to hour (starting from 0) plus 128, modulo 2^16, and has the
# shape (2, variables, stations, hours): all the low bytes, then all the high bytes.


def _read_beijing_air():
    """Return the measurements as an array of shape (hours, stations * variables)."""
    file = resources.files("sklearn_mfgd.datasets") / "data" / "beijing_air.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        levels, (low, high) = arrays["levels"], arrays["steps"].astype(np.uint16)
    codes = np.cumsum(low + 256 * high - 128, axis=-1, dtype=np.uint16)
    values = levels[np.arange(len(levels)), codes.T]  # hours, stations, variables
    return values.reshape(len(values), -1)


@validate_params({"as_frame": ["boolean"]}, prefer_skip_nested_validation=True)
def load_beijing_air(*, as_frame: bool = False) -> Bunch:
    """Load a table of hourly air quality in Beijing, with real missing values.

    The table has one year of hourly air pollutants and weather at 12 monitoring
    stations of Beijing, from March 2013 to February 2014. Its missing values are the
    real gaps of the instruments. There is no target.

    =================   =============================
    Samples                              8760 (hours)
    Dimensionality        132 (stations x variables)
    Features                                     real
    Missing values                   2.5 %, in bursts
    =================   =============================

    The data are an extract of data set 501 of the UCI Machine Learning Repository [1]_,
    licensed under CC BY 4.0. ``DESCR`` says what was changed and whom to cite.

    Parameters
    ----------
    as_frame : bool, default=False
        Whether `data` is a pandas DataFrame with an hourly index instead of an array.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : {ndarray, DataFrame} of shape (8760, 132)
            The measurements, NaN where missing. Each row is an hour. The columns are
            the variables of the first station, then those of the second, and so on:
            ``data.reshape(8760, 12, 11)`` splits an array into stations and variables.
            With `as_frame=True` it is a pandas DataFrame indexed by time.
        feature_names : list of str
            The names of the columns, such as `"Aotizhongxin PM2.5"`.
        frame : DataFrame of shape (8760, 132) or None
            The same DataFrame as `data` with `as_frame=True`, otherwise None.
        times : ndarray of shape (8760,) and dtype datetime64[h]
            The hours of the rows, in local time.
        stations : list of str
            The names of the 12 stations.
        variables : list of str
            The names of the 11 variables.
        units : dict
            The unit of each variable.
        DESCR : str
            The full description of the data set.

    References
    ----------
    .. [1] Chen, S. (2017). Beijing Multi-Site Air Quality [Dataset]. UCI Machine
       Learning Repository. https://doi.org/10.24432/C5RK5G

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mfgd.datasets import load_beijing_air
    >>> air = load_beijing_air()
    >>> air.data.shape
    (8760, 132)
    >>> air.feature_names[:3]
    ['Aotizhongxin PM2.5', 'Aotizhongxin PM10', 'Aotizhongxin SO2']
    >>> int(np.isnan(air.data).sum())
    28559

    Every 11th column is the same variable at the next station. This is carbon monoxide:

    >>> co = air.data[:, air.variables.index("CO") :: len(air.variables)]
    >>> float(np.isnan(co).mean().round(3))
    0.131
    """
    data = _read_beijing_air()
    times = np.datetime64("2013-03-01T00", "h") + np.arange(len(data))
    feature_names = [
        f"{station} {variable}" for station in STATIONS for variable in UNITS
    ]
    descr = resources.files("sklearn_mfgd.datasets") / "descr" / "beijing_air.rst"

    frame = None
    if as_frame:
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "load_beijing_air with as_frame=True requires pandas."
            ) from error
        index = pd.DatetimeIndex(times, freq="infer", name="time")
        data = frame = pd.DataFrame(data, index=index, columns=feature_names)

    return Bunch(
        data=data,
        frame=frame,
        feature_names=feature_names,
        times=times,
        stations=list(STATIONS),
        variables=list(UNITS),
        units=dict(UNITS),
        DESCR=descr.read_text(encoding="utf-8"),
    )

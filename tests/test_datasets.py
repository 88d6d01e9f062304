"""Specification of the data sets."""

import os
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sklearn_mfgd.datasets import load_beijing_air

N_HOURS, N_STATIONS, N_VARIABLES = 8760, 12, 11
POLLUTANTS = ["PM2.5", "PM10", "SO2", "NO2", "CO", "O3"]

# Unit, number of missing values, least and largest value of each variable.
VARIABLES = {
    "PM2.5": ("ug/m^3", 1753, 2, 844),
    "PM10": ("ug/m^3", 1232, 2, 999),
    "SO2": ("ug/m^3", 2399, 0.2856, 315),
    "NO2": ("ug/m^3", 4078, 1.0265, 273),
    "CO": ("ug/m^3", 13744, 100, 10000),
    "O3": ("ug/m^3", 5324, 0.2142, 1071),
    "TEMP": ("degC", 7, -14.5, 38),
    "PRES": ("hPa", 7, 982.9, 1035.9),
    "DEWP": ("degC", 10, -31.9, 29.1),
    "RAIN": ("mm", 0, 0, 72.5),
    "WSPM": ("m/s", 5, 0, 13.2),
}

# The source as an array `data` of shape (hours, stations, variables), not distributed.
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SHARED_DATA = Path(os.environ.get("SKLEARN_MFGD_SHARED_DATA", SHARED_DATA))
BEIJING_AIR_SOURCE = SHARED_DATA / "beijing-air" / "prsa.npz"


@pytest.fixture(scope="module")
def air():
    return load_beijing_air()


def values_of(air, variable):
    """Return the values of one variable, of shape (hours, stations)."""
    values = air.data.reshape(N_HOURS, N_STATIONS, N_VARIABLES)
    return values[:, :, air.variables.index(variable)]


def test_beijing_air_is_a_table_of_hours_by_stations_and_variables(air):
    assert isinstance(air.data, np.ndarray) and air.data.dtype == np.float64
    assert air.data.shape == (N_HOURS, N_STATIONS * N_VARIABLES)
    assert air.data.flags.c_contiguous and air.data.flags.writeable
    assert air.frame is None
    assert "target" not in air


def test_beijing_air_names_its_columns_station_first(air):
    assert len(set(air.stations)) == N_STATIONS
    assert air.variables == list(air.units) == list(VARIABLES)
    names = [f"{station} {kind}" for station in air.stations for kind in air.variables]
    assert air.feature_names == names
    assert air.feature_names[0] == "Aotizhongxin PM2.5"
    assert air.feature_names[-1] == "Wanshouxigong WSPM"


def test_beijing_air_covers_one_year_hour_by_hour(air):
    assert air.times.shape == (N_HOURS,)
    assert air.times.dtype == np.dtype("datetime64[h]")
    assert air.times[0] == np.datetime64("2013-03-01T00")
    assert (np.diff(air.times) == np.timedelta64(1, "h")).all()


@pytest.mark.parametrize("variable", VARIABLES)
def test_beijing_air_has_its_values_and_its_missing_values(air, variable):
    values = values_of(air, variable)
    unit, n_missing = air.units[variable], np.isnan(values).sum()
    found = unit, n_missing, np.nanmin(values), np.nanmax(values)
    assert found == VARIABLES[variable]
    # A float32 of the source made wider would not be equal to a decimal number.
    assert_array_equal(values, np.round(values, 4))


def test_beijing_air_misses_values_in_bursts_and_no_whole_row_or_column(air):
    missing = np.isnan(air.data)
    assert not missing.all(axis=0).any() and not missing.all(axis=1).any()
    # An hour after a missing one would be missing in 2.5 % of the cases by chance.
    assert missing[1:][missing[:-1]].mean() > 0.75


def test_beijing_air_rows_and_columns_are_in_place(air):
    by_hour_of_day = values_of(air, "TEMP").reshape(-1, 24, N_STATIONS)
    daily_cycle = np.nanmean(by_hour_of_day, axis=(0, 2))
    assert 12 <= daily_cycle.argmax() <= 16
    assert 3 <= daily_cycle.argmin() <= 7
    temperature = np.nanmean(values_of(air, "TEMP"), axis=1)
    months = air.times.astype("datetime64[M]")
    assert temperature[months == np.datetime64("2013-07")].mean() > 25
    assert temperature[months == np.datetime64("2014-01")].mean() < 3


def test_beijing_air_copied_weather_columns_are_as_described(air):
    columns = [tuple(column) for column in np.nan_to_num(air.data, nan=-1e9).T]
    copies = [i for i, column in enumerate(columns) if column in columns[:i]]
    assert len(set(columns)) == 108
    assert not {air.variables[i % N_VARIABLES] for i in copies} & set(POLLUTANTS)


def test_beijing_air_description_cites_source_and_licence(air):
    assert air.DESCR.startswith(".. _beijing_air_dataset:")
    phrases = ["data set 501", "CC BY 4.0", "Chen, S. (2017)", "Cautionary Tales"]
    phrases += ["What was changed", "https://creativecommons.org/licenses/by/4.0/"]
    phrases += ["https://doi.org/10.24432/C5RK5G", *air.variables, *air.stations]
    for phrase in phrases:
        assert phrase in air.DESCR


def test_beijing_air_as_frame(air):
    pd = pytest.importorskip("pandas")
    framed = load_beijing_air(as_frame=True)
    assert isinstance(framed.frame, pd.DataFrame)
    assert framed.data is framed.frame
    assert list(framed.frame.columns) == framed.feature_names == air.feature_names
    assert (framed.frame.dtypes == np.float64).all()
    assert_array_equal(framed.frame.to_numpy(), air.data)
    assert framed.frame.index.freq == pd.tseries.offsets.Hour()
    assert_array_equal(framed.frame.index.to_numpy(), air.times)


def test_beijing_air_needs_pandas_for_a_frame_only(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    load_beijing_air()
    with pytest.raises(ImportError, match="requires pandas"):
        load_beijing_air(as_frame=True)


def test_beijing_air_as_frame_is_a_keyword_and_boolean():
    with pytest.raises(TypeError):
        load_beijing_air(True)
    with pytest.raises(ValueError, match="as_frame"):
        load_beijing_air(as_frame="yes")


def test_beijing_air_loads_equal_and_independent_data(air):
    first = load_beijing_air()
    first.data[:], first.times[:] = 0, first.times[0]
    for name in ("feature_names", "stations", "variables", "units"):
        first[name].clear()
    second = load_beijing_air()
    assert_array_equal(second.data, air.data)
    assert_array_equal(second.times, air.times)
    for name in ("feature_names", "stations", "variables", "units"):
        assert second[name] == air[name]


def test_beijing_air_file_is_small_and_has_no_pickles():
    file = resources.files("sklearn_mfgd.datasets") / "data" / "beijing_air.npz"
    assert len(file.read_bytes()) < 1_000_000
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        assert not any(arrays[name].dtype.hasobject for name in arrays.files)


NO_SOURCE = "the source is not in SKLEARN_MFGD_SHARED_DATA or ../shared/data"


@pytest.mark.skipif(not BEIJING_AIR_SOURCE.is_file(), reason=NO_SOURCE)
def test_beijing_air_equals_the_source_entry_by_entry(air):
    with np.load(BEIJING_AIR_SOURCE) as source:
        assert source["stations"].tolist() == air.stations
        assert source["variables"].tolist() == air.variables
        expected = source["data"][:N_HOURS].reshape(N_HOURS, -1)
    assert expected.dtype == np.float32
    assert_array_equal(air.data.astype(np.float32), expected)
    # Each value is the shortest decimal number that is stored as the same float32.
    values, first = np.unique(air.data, return_index=True)
    for value, stored in zip(values, expected.flat[first], strict=True):
        assert str(value) == str(float(str(stored)))

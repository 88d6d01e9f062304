"""Spark's ALS, as `bench_scale` compares it. Only this module imports pyspark."""

import time

import numpy as np
from pyspark.ml.recommendation import ALS
from pyspark.sql import SparkSession
from sparse_contestants import N_THREADS, rmse

# Grid for Spark: rank, regParam, maxIter. Its ridge grows with the entries of a row.
SPARK_GRID = [
    (rank, reg, n_sweeps)
    for rank in (10, 16, 32)
    for reg in (0.05, 0.065, 0.08)
    for n_sweeps in (20, 40)
]


def spark_session(folder):
    """Start Spark in a virtual machine of its own, on two threads."""
    builder = SparkSession.builder.master(f"local[{N_THREADS}]")
    for name, value in {
        "spark.driver.memory": "4g",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": str(N_THREADS),
        "spark.local.dir": folder,
    }.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    # Without checkpoints the lineage of 20 sweeps overflows the stack.
    session.sparkContext.setCheckpointDir(folder)
    return session


def spark_fit(frame, data, rank, reg, n_sweeps):
    """Test RMSE of Spark's ALS, and the seconds of the fit alone."""
    X, _, (rows, columns, ratings) = data
    als = ALS(
        rank=rank,
        regParam=reg,
        maxIter=n_sweeps,
        numUserBlocks=N_THREADS,
        numItemBlocks=N_THREADS,
        userCol="user",
        itemCol="item",
        ratingCol="rating",
        seed=0,
    )
    start = time.perf_counter()
    model = als.fit(frame)
    model.userFactors.count(), model.itemFactors.count()
    seconds = time.perf_counter() - start
    factors = []
    for count, table in zip(
        X.shape, (model.userFactors, model.itemFactors), strict=True
    ):
        factors.append(np.full((count, rank), np.nan))
        for row in table.collect():
            factors[-1][row.id] = row.features
    W, H = factors
    predicted = np.einsum("ij,ij->i", W[rows], H[columns])
    predicted[np.isnan(predicted)] = X.data.mean()  # rows and columns without entries
    return rmse(predicted, ratings), seconds

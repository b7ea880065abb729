"""Makes a bucket for artifacts where there is none: python deploy/make_bucket.py NAME."""

import os
import sys

import boto3
from botocore.exceptions import ClientError


def main() -> None:
    """The endpoint and the keys come from the environment that MLflow reads too."""
    client = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    try:
        client.create_bucket(Bucket=sys.argv[1])
    except ClientError as error:
        if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
            raise


if __name__ == "__main__":
    main()
